"""What the shipped model and predictor are for, on problems of their own: the full cache solves
them, DynTS keeps that at a bounded cache, and forgetting by age does not."""

import pytest

from dynts_batch.config import MemoryConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.lab.problems import Problem, problem_set
from dynts_batch.records import Completion, Request

PROBLEMS = [x for x in problem_set(seed=31_337, num_problems=36) if x.difficulty == "medium"]
BUDGET = 200


def solve(policy: PolicyConfig) -> list[tuple[Problem, Completion]]:
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=1000)
    engine = Engine.load(
        policy=policy, sampling=sampling, memory=MemoryConfig(max_seqs=len(PROBLEMS))
    )
    requests = (Request(str(i), prompt=problem.question) for i, problem in enumerate(PROBLEMS))
    return [(PROBLEMS[int(c.request_id)], c) for c in engine.generate(requests)]


def num_right(solved: list[tuple[Problem, Completion]]) -> int:
    return sum(f"\\boxed{{{problem.answer}}}" in (c.answer or "") for problem, c in solved)


@pytest.fixture(scope="module")
def full() -> list[tuple[Problem, Completion]]:
    return solve(PolicyConfig(name="full"))


def test_the_full_cache_solves_nine_of_ten(full: list[tuple[Problem, Completion]]) -> None:
    assert num_right(full) >= 0.9 * len(PROBLEMS)


def test_greedy_traces_keep_their_digressions(full: list[tuple[Problem, Completion]]) -> None:
    for problem, completion in full:
        trace = "".join(phrase.text for phrase in problem.reasoning())
        assert abs(len(completion.reasoning or "") - len(trace)) < 0.1 * len(trace)


def test_dynts_keeps_the_answers_that_a_window_of_the_same_budget_loses(
    full: list[tuple[Problem, Completion]],
) -> None:
    dynts, window = (
        solve(PolicyConfig(name=name, budget=BUDGET, window_size=32, keep_ratio=0.4))
        for name in ("dynts", "window")
    )
    assert max(completion.peak_cache_len for _, completion in dynts) == BUDGET
    stored = sum(completion.peak_cache_len for _, completion in dynts)
    assert stored <= 0.3 * sum(completion.peak_cache_len for _, completion in full)
    assert num_right(dynts) >= num_right(full) - 2
    assert num_right(window) <= num_right(full) - 6
