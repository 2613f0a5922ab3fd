"""What ends thinking, or a row, that the model does not end: a budget and loops."""

import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoTokenizer

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.decoding import recorded_steps as recorded_steps_module
from dynts_batch.engine.endings import Endings
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.engine.model.think_tags import THINK
from dynts_batch.engine.sequence import Sequence
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.policies import make_policy
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


@pytest.mark.parametrize("budget", [0, 1, 3, 8, 30])
def test_a_budget_shorter_than_the_opening_tag_ends_it_where_it_is_complete(
    budget: int, tiny_model_dirs: dict[str, Path]
) -> None:
    """The model writes the tag itself; this one's tokenizer spells it in several tokens."""
    found = load_model(resolve_model(ModelConfig(name=str(tiny_model_dirs["llama"]))))
    tag = found.tokenizer.encode(THINK.start, add_special_tokens=False)

    class OpensThinking(torch.nn.Module):
        num_calls = 0

        def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
            logits = found.head(hidden_states)
            if self.num_calls < len(tag):
                logits[:, tag[self.num_calls]] = logits.max() + 1
            self.num_calls += 1
            return logits

    engine = Engine(
        dataclasses.replace(found, head=OpensThinking(), stop_token_ids=frozenset()),
        make_policy(PolicyConfig("full")),
        SamplingConfig(temperature=0.0, max_new_tokens=60, max_thinking_tokens=budget),
        MemoryConfig(max_seqs=1, max_prompt_tokens=64),
    )
    (completion,) = engine.generate([Request("a", prompt_token_ids=[20, 21, 22])])
    assert completion.forced_end == "budget"
    assert completion.reasoning_tokens == max(budget, len(tag))


def test_a_token_that_the_model_lacks_is_refused_alone(
    tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    """Tokenizers often have padding beyond the model's embeddings."""
    path = Path(shutil.copytree(tiny_model_dirs["llama"], tmp_path / "padded"))
    tokenizer = AutoTokenizer.from_pretrained(path)
    tokenizer.add_tokens(["[PAD]"], special_tokens=True)
    tokenizer.save_pretrained(path)
    engine = Engine.load(
        ModelConfig(name=str(path)),
        PolicyConfig("full"),
        SamplingConfig(max_new_tokens=5),
        MemoryConfig(max_seqs=2, max_prompt_tokens=64),
    )
    requests = [Request("good", prompt="a = 3"), Request("bad", prompt="a = 3 [PAD]")]
    found = {completion.request_id: completion for completion in engine.generate(requests)}
    assert found["bad"].error_type == "BadRowError"
    assert found["good"].completion_token_ids


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
