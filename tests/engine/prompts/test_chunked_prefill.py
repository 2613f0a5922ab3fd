"""Prompts processed in chunks, between decode steps:
nothing waits for a long prompt, and no completion changes."""

from pathlib import Path

import pytest
import torch
from greedy_runs import greedy_engine, huggingface, random_prompts, run
from policy_kinds import one_of_each_kind
from tiny_models import ARCHITECTURES

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine, scheduler, sequence
from dynts_batch.records import Request

CHUNK = 7
#: From one token to several chunks, in no order of length.
LENGTHS = (30, 2, 7, 16, 8, 1, 22)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (scheduler, sequence):
        monkeypatch.setattr(module, "PREFILL_CHUNK", CHUNK)


@pytest.mark.parametrize("policy_name", one_of_each_kind())
def test_chunks_change_no_completion_under_any_policy(
    policy_name: str, told_apart_model: ModelConfig, request: pytest.FixtureRequest
) -> None:
    """Lanes are refilled while others decode, and evict, between the chunks of a prompt."""
    policy = PolicyConfig(policy_name, budget=48, window_size=8, keep_ratio=0.5)
    sampling = SamplingConfig(temperature=0.8, max_new_tokens=30)
    prompts = [list(range(10 + n, 10 + 2 * n)) for n in LENGTHS]

    def completions(max_seqs: int) -> list[list[int]]:
        memory = MemoryConfig(max_seqs=max_seqs, max_prompt_tokens=32)
        return run(Engine.load(told_apart_model, policy, sampling, memory), prompts)

    whole = completions(max_seqs=4)
    request.getfixturevalue("small_chunks")
    assert completions(max_seqs=3) == whole


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chunks_equal_huggingface_generate(
    architecture: str, tiny_model_dirs: dict[str, Path]
) -> None:
    """With sinks and sliding windows shorter than a prompt, too."""
    prompts = random_prompts(seed=5, count=5)
    folder = tiny_model_dirs[architecture]
    assert run(greedy_engine(folder, max_seqs=3), prompts) == huggingface(folder, prompts)


@pytest.mark.parametrize("architecture", ["llama", "gpt_oss"])
def test_layers_see_no_padding(architecture: str, tiny_model_dirs: dict[str, Path]) -> None:
    """The first pass has all prompts, and as many tokens as they have."""
    engine = greedy_engine(tiny_model_dirs[architecture], max_seqs=len(LENGTHS))
    seen: list[int] = []
    mlp = next(m for name, m in engine._model.decoder.named_modules() if name.endswith(".mlp"))
    mlp.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[:-1].numel()))
    run(engine, [list(range(10, 10 + n)) for n in LENGTHS])
    assert seen[0] == sum(LENGTHS) < len(LENGTHS) * max(LENGTHS)


@pytest.mark.usefixtures("small_chunks")
def test_a_long_prompt_stalls_no_running_sequence(tiny_model_dirs: dict[str, Path]) -> None:
    """Two decode when two prompts of five chunks come, and one of a token:
    all go on at once, a chunk or token a step."""
    engine = greedy_engine(tiny_model_dirs["llama"], max_seqs=5)
    for name, length in (("a", 3), ("b", 5)):
        engine.add_request(Request(name, prompt_token_ids=list(range(10, 10 + length))))
    engine.step()
    for name, length in (("long", 33), ("longer", 35), ("short", 1)):
        engine.add_request(Request(name, prompt_token_ids=list(range(10, 10 + length))))
    stored = engine.stored_tokens
    for _ in range(5):
        engine.step()
        added = engine.stored_tokens - stored
        assert 2 < added <= 2 + CHUNK, "both decode, and no more than a chunk is processed"
        stored = engine.stored_tokens
    # "longer" and "short" were kept waiting by "long", which begins to decode with its last chunk.
    assert (engine.num_running, engine.num_waiting) == (3, 2)


@pytest.mark.usefixtures("small_chunks")
def test_decoding_along_a_lane_whose_prompt_is_half_done_leaves_it_as_it_is(
    tiny_model_dirs: dict[str, Path],
) -> None:
    """As the surplus lanes of a CUDA graph do."""
    engine = greedy_engine(tiny_model_dirs["qwen2"], max_seqs=2)
    engine.add_request(Request("decoding", prompt_token_ids=[10, 11, 12]))
    engine.step()
    engine.add_request(Request("prefilling", prompt_token_ids=list(range(10, 40))))
    engine.step()
    inputs, num_stored = engine._runner.inputs, 1 * CHUNK

    def lane() -> list[torch.Tensor]:
        stored = engine.arena.stored(1, 2, num_stored)
        return [tensor[1].clone() for tensor in stored]

    before = lane()
    assert before[0].abs().sum(dim=(0, 2)).min() > 0
    inputs.rest_beyond(1, 2)
    with torch.inference_mode():
        engine._runner.next_tokens(2, 48, is_ragged=True)
    assert all(torch.equal(a, b) for a, b in zip(before, lane(), strict=True))
    assert int(inputs.slots[1]) == num_stored, "the next chunk overwrites what this wrote"


@pytest.mark.usefixtures("small_chunks")
def test_decoding_along_a_lane_between_its_chunks_leaves_the_queries_that_it_remembers() -> None:
    """The last chunk is shorter than what SnapKV looks at:
    the older queries are from the chunks before."""
    policy = PolicyConfig("snapkv", budget=40, window_size=8, options={"observation_window": 16})
    sampling, memory = SamplingConfig(max_new_tokens=40), MemoryConfig(max_seqs=2)

    def remembered(*, runs_along: bool) -> torch.Tensor:
        engine = Engine.load(ModelConfig(), policy, sampling, memory)
        for name, length in (("decoding", 3), ("prefilling", 30)):
            engine.add_request(Request(name, prompt_token_ids=list(range(10, 10 + length))))
            engine.step()
        inputs = engine._runner.inputs
        while len(engine._scheduler.decoding()) == 1:
            if runs_along:
                inputs.positions[1] = 27  # as an earlier sequence may leave it
                inputs.rest_beyond(1, 2)
                with torch.inference_mode():
                    engine._runner.next_tokens(2, 40, is_ragged=True)
            engine.step()
        return engine.arena.read_queries(1, torch.tensor([1]), torch.arange(16, 30)[None])

    assert torch.equal(remembered(runs_along=True), remembered(runs_along=False))
