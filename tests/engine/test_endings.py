"""What ends thinking, or a row, that the model does not end: a budget and loops."""

from types import SimpleNamespace

import pytest

from dynts_batch.config import MemoryConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.decoding import recorded_steps as recorded_steps_module
from dynts_batch.engine.endings import Endings
from dynts_batch.engine.model.think_tags import THINK
from dynts_batch.engine.sequence import Sequence
from dynts_batch.errors import ConfigError
from dynts_batch.lab.problems import problem_set
from dynts_batch.records import Request

PROBLEMS = problem_set(3, 4)
LONGEST = 220


def run(policy=None, max_seqs=10, **sampling):
    engine = Engine.load(
        policy=policy or PolicyConfig("full"),
        sampling=SamplingConfig(temperature=0.0, max_new_tokens=LONGEST, **sampling),
        memory=MemoryConfig(max_seqs=max_seqs, max_prompt_tokens=300),
    )
    requests = [Request(str(n), prompt=problem.question) for n, problem in enumerate(PROBLEMS)]
    return {completion.request_id: completion for completion in engine.generate(requests)}


@pytest.fixture(scope="module")
def unlimited():
    return run()


@pytest.fixture(scope="module")
def limited():
    return run(max_thinking_tokens=100, loop_repeats=4)


def test_a_budget_cuts_thinking_and_every_row_has_an_answer(unlimited, limited):
    for key, completion in limited.items():
        free = unlimited[key]
        if free.reasoning_tokens <= 100:
            assert completion.completion_token_ids == free.completion_token_ids
            assert completion.forced_end is None
        else:
            assert completion.completion_token_ids[:100] == free.completion_token_ids[:100]
            assert completion.forced_end == "budget"
            assert completion.reasoning_tokens == 100
        assert completion.answer
    assert any(completion.forced_end for completion in limited.values())


def test_the_budget_of_a_row_does_not_depend_on_its_batch_mates(limited):
    alone = run(max_seqs=2, max_thinking_tokens=100)
    for key, completion in limited.items():
        assert alone[key].completion_token_ids == completion.completion_token_ids


def test_recorded_steps_write_the_same_end(limited, monkeypatch):
    monkeypatch.setattr(recorded_steps_module, "RECORD_AFTER", 5)
    recorded = run(max_thinking_tokens=100)
    for key, completion in limited.items():
        assert recorded[key].completion_token_ids == completion.completion_token_ids


def test_policies_see_a_forced_end_as_the_end_of_thinking():
    """Once the answer has begun it is protected, so nothing of it is evicted."""
    policy = PolicyConfig("dynts", budget=150, window_size=16, keep_ratio=0.4)
    found = run(policy, max_thinking_tokens=160)
    assert all(completion.answer for completion in found.values())
    assert any(completion.num_evictions for completion in found.values())


def test_a_budget_of_nothing_answers_at_once():
    found = run(max_thinking_tokens=0)
    for completion in found.values():
        assert completion.reasoning_tokens == 0
        assert completion.forced_end == "budget"
        assert completion.answer


def test_a_text_that_holds_the_end_tag_begins_the_answer():
    opener = r"The final answer is \boxed{"
    found = run(max_thinking_tokens=100, end_thinking_text=f"Enough.{THINK.end}{opener}")
    for completion in found.values():
        if completion.forced_end:
            assert completion.reasoning.endswith("Enough.")
            assert completion.answer.startswith(opener)
            assert THINK.end not in completion.answer
    assert any(completion.forced_end for completion in found.values())


def test_text_that_the_tokenizer_cannot_write_is_refused():
    lossy = SimpleNamespace(
        tags=THINK, encode=lambda text: [0], text=lambda token_ids: "<unknown></think>"
    )
    sampling = SamplingConfig(max_thinking_tokens=10, end_thinking_text="Zürich")
    with pytest.raises(ConfigError, match=r"end_thinking_text must be text .* 'Zürich'"):
        Endings.make(lossy, sampling)


def sequence_of(token_ids, *, is_answer):
    return Sequence(
        Request("q", prompt="?"),
        prompt="?<think>",
        prompt_token_ids=[0],
        key=0,
        find_answer=lambda ids: None,
        added_at=0.0,
        max_new_tokens=10_000,
        prefill_limit=10_000,
        completion_token_ids=list(token_ids),
        answer_start=3 if is_answer else None,
    )


@pytest.mark.parametrize("is_answer", [False, True])
def test_a_loop_in_thinking_is_ended_and_one_in_the_answer_ends_the_row(is_answer):
    renderer = SimpleNamespace(
        tags=THINK,
        encode=lambda text: [7, 8],
        text=lambda ids: "</think>",
        opens=lambda ids: False,
        opens_thinking=lambda ids: True,
    )
    endings = Endings.make(renderer, SamplingConfig(loop_min_tokens=8, loop_repeats=3))
    sequence = sequence_of(range(100, 120), is_answer=is_answer)
    for token_id in [1, 2, 3, 4, 5] * 30:
        sequence.append(token_id, frozenset())
        endings.watch(sequence)
        if sequence.finish_reason or sequence.forced_end:
            break
    assert sequence.forced_end == (None if is_answer else "loop")
    assert sequence.finish_reason == ("loop" if is_answer else None)
    # Ten tokens are the shortest block, three of them, looked for every sixteenth token.
    assert len(sequence.completion_token_ids) <= 20 + 30 + 16
    if not is_answer:
        for _ in range(2):  # what the model would say now does not matter
            sequence.append(99, frozenset({7}))
        assert sequence.completion_token_ids[-2:] == [7, 8]
        assert sequence.finish_reason is None


def test_honest_rows_are_not_touched(limited):
    assert all(completion.finish_reason != "loop" for completion in limited.values())
    assert all(completion.forced_end != "loop" for completion in limited.values())
