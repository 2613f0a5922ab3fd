"""A quantised cache through the engine: as transformers with a cache that rounds,
the same every time, and smaller."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from greedy_runs import random_prompts, run
from number_formats import round_trip
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine, scheduler, sequence
from dynts_batch.engine.model.memory import arena_shape
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.policies import make_policy
from dynts_batch.records import Request

MAX_NEW_TOKENS = 24


class RoundingCache(DynamicCache):
    """Rounds every complete group of 16 tokens once, with the plain reference; a chunk of a prompt
    attends to itself unrounded, and to what is before it rounded. Keys are rounded without the
    `offsets` of their layer."""

    def __init__(self, of_keys: str, offsets: Sequence[torch.Tensor | None]) -> None:
        super().__init__()
        self.of_keys, self.offsets = of_keys, offsets

    def update(
        self, key: torch.Tensor, value: torch.Tensor, layer: int, *args: Any, **_: Any
    ) -> Any:
        keys, values = super().update(key, value, layer)
        length, is_prompt = keys.shape[2], key.shape[2] > 1
        before = length - key.shape[2]
        seen = (keys.clone(), values.clone()) if is_prompt else (keys, values)
        offset = self.offsets[layer]
        offset = torch.zeros(keys.shape[1], keys.shape[3]) if offset is None else offset
        for begin in range(before // 16 * 16, length // 16 * 16, 16):
            for head in range(keys.shape[1]):
                for column, own in zip(
                    keys[0, head, begin : begin + 16].T, offset[head], strict=True
                ):
                    rounded = round_trip((column - own).tolist(), self.of_keys)
                    column[:] = torch.tensor(rounded) + own
                for part in values[0, head, begin : begin + 16].reshape(-1, 16):
                    part[:] = torch.tensor(round_trip(part.tolist(), "nvfp4"))
        return seen


def engine(folder: Path, max_seqs: int, policy: PolicyConfig) -> Engine:
    return Engine.load(
        ModelConfig(name=str(folder)),
        policy,
        SamplingConfig(temperature=0.0, max_new_tokens=MAX_NEW_TOKENS),
        MemoryConfig(max_seqs=max_seqs, max_prompt_tokens=64),
    )


def test_a_format_that_there_is_not_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"false, true or one of nvfp4, int4, fp8 .* got 'int3'"):
        make_policy(PolicyConfig(name="full", quantize="int3"))


FULL = PolicyConfig(name="full", quantize=True)


@pytest.mark.parametrize("chunk", [16, sequence.PREFILL_CHUNK])
@pytest.mark.parametrize("architecture", ["llama", "qwen3"])
@pytest.mark.parametrize("quantize", ["nvfp4", "int4"])
def test_without_evictions_it_equals_transformers_with_a_cache_that_rounds(
    quantize: str,
    architecture: str,
    chunk: int,
    tiny_model_dirs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert sequence.PREFILL_CHUNK % 16 == 0
    for module in (scheduler, sequence):
        monkeypatch.setattr(module, "PREFILL_CHUNK", chunk)
    folder, prompts = tiny_model_dirs[architecture], random_prompts(seed=5, count=6)
    model = AutoModelForCausalLM.from_pretrained(folder)
    tested = engine(folder, 3, PolicyConfig(name="full", quantize=quantize))
    offsets = tested.arena.key_offsets
    assert [offset is None for offset in offsets] == [quantize == "int4"] * len(offsets)
    completions = run(tested, prompts)
    for prompt, completion in zip(prompts, completions, strict=True):
        cache, expected = RoundingCache(quantize, offsets), list(prompt)
        for start in (
            *range(0, len(prompt), chunk),
            *range(len(prompt), len(prompt) + len(completion) - 1),
        ):
            stop = min(start + chunk, len(prompt)) if start < len(prompt) else start + 1
            with torch.inference_mode():
                logits = model(torch.tensor([expected[start:stop]]), cache=cache).logits[0, -1]
            if stop >= len(prompt):
                expected.append(int(logits.argmax()))
        assert completion == expected[len(prompt) :]


@pytest.mark.parametrize(
    ("name", "quantize"), [("random", "nvfp4"), ("rkv", "int4"), ("h2o", "nvfp4")]
)
def test_evictions_leave_a_row_the_same_every_time_alone_and_among_others(
    name: str, quantize: str, tiny_model_dirs: dict[str, Path]
) -> None:
    folder, prompts = tiny_model_dirs["qwen2"], random_prompts(seed=6, count=7)
    policy = PolicyConfig(name=name, budget=53, window_size=4, keep_ratio=0.5, quantize=quantize)
    together = run(engine(folder, 4, policy), prompts)
    assert run(engine(folder, 4, policy), prompts) == together
    alone = engine(folder, 1, policy)
    for index, prompt in enumerate(prompts):
        (completion,) = alone.generate([Request(str(index), prompt_token_ids=prompt)])
        assert list(completion.completion_token_ids) == together[index]


def test_more_sequences_fit_and_rows_count_packed_bytes(tiny_model_dirs: dict[str, Path]) -> None:
    memory, sampling = MemoryConfig(kv_gib=2**21 / 2**30), SamplingConfig(max_new_tokens=200)
    model = ModelConfig(name=str(tiny_model_dirs["qwen3"]))
    policy = PolicyConfig(name="random", budget=512)
    plain = Engine.load(model, policy, sampling, memory)
    packed = Engine.load(
        model, PolicyConfig(name="random", budget=512, quantize=True), sampling, memory
    )
    assert packed.arena.num_bytes <= 2**21
    assert packed.max_seqs >= 5 * plain.max_seqs
    finer = Engine.load(
        model, PolicyConfig(name="random", budget=512, quantize="fp8"), sampling, memory
    )
    assert finer.arena.num_bytes <= 2**21
    assert packed.max_seqs > finer.max_seqs >= 3 * plain.max_seqs
    assert len(run(finer, random_prompts(seed=7, count=1))[0]) == 200
    assert len(run(packed, random_prompts(seed=7, count=1))[0]) == 200


def test_a_head_dim_that_makes_no_groups_is_refused(
    tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    config = (tiny_model_dirs["llama"] / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"head_dim": 16', '"head_dim": 24'))
    model_config = AutoConfig.from_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"policy\.quantize must be false .* a head_dim of 24"):
        arena_shape(model_config, make_policy(FULL), torch.float32)
