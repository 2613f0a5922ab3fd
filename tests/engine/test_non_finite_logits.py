"""Logits that are no numbers: the row is an error, at once, and no other row notices,
in the same batch or in its lane after it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine, scheduler, sequence
from dynts_batch.engine.attention import steps as attention
from dynts_batch.records import Completion, Request

#: More than the lanes, so that the failed ones are filled again, the shorter ones by later rows.
PROMPTS = [list(range(10, 10 + length)) for length in (9, 20, 4, 17, 5, 6, 3, 12)]


def make_engine(folder: Path, *, quantize: bool | str = False, dtype: Any = "auto") -> Engine:
    policy = PolicyConfig(name="h2o", budget=32, window_size=6, quantize=quantize)
    sampling = SamplingConfig(temperature=0.9, max_new_tokens=30)
    return Engine.load(
        ModelConfig(name=str(folder), dtype=dtype), policy, sampling, MemoryConfig(max_seqs=3)
    )


def generate(engine: Engine, prompts: list[list[int]] = PROMPTS) -> dict[str, Completion]:
    requests = [Request(str(i), prompt_token_ids=prompt) for i, prompt in enumerate(prompts)]
    return {completion.request_id: completion for completion in engine.generate(requests)}


def poison(engine: Engine, token_id: int) -> None:
    """Whoever processes this token leaves the range of numbers."""
    engine._model.decoder.get_input_embeddings().weight[token_id] = torch.nan


@pytest.mark.parametrize("quantize", [False, True])
@pytest.mark.parametrize("is_fused", [True, False])
def test_such_a_row_is_an_error_and_the_others_are_what_they_were(
    is_fused: bool,
    quantize: bool,
    tiny_model_dirs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Torch's attention reads dead slots with weight 0, and 0 x NaN would carry over."""
    if not is_fused:
        monkeypatch.setattr(attention, "fused_decode", lambda *_: None)
    engine = make_engine(tiny_model_dirs["llama"], quantize=quantize)
    expected = {key: c.completion_token_ids for key, c in generate(engine).items()}
    used_by = {
        token: [key for key, ids in expected.items() if token in ids[:-1]]
        for token in set().union(*expected.values()) - set().union(*PROMPTS)
    }
    first = min(token for token, keys in used_by.items() if keys == ["0"])
    poison(engine, first)  # drawn by one row
    poison(engine, PROMPTS[1][-1])  # and in the prompt of one other
    poisoned = {"0": 1 + expected["0"].index(first), "1": 0}
    for key in expected.keys() - poisoned.keys():
        assert not {first, PROMPTS[1][-1]} & {*expected[key], *PROMPTS[int(key)]}
    engine.busy_s = 0.0
    completions = generate(engine)
    for key, completion in completions.items():
        if key not in poisoned:
            assert completion.finish_reason in ("stop", "length")
            assert completion.completion_token_ids == expected[key]
            continue
        assert (completion.finish_reason, completion.error_type) == (
            "error",
            "NonFiniteLogitsError",
        )
        assert f"completion token {poisoned[key] + 1} must be finite" in completion.error_message
        assert completion.reasoning is completion.answer is None
    assert sum(c.device_s for c in completions.values()) == pytest.approx(engine.busy_s, rel=1e-9)


@pytest.mark.parametrize("quantize", [False, True])
def test_an_earlier_chunk_of_a_prompt_is_looked_at_too(
    quantize: bool, tiny_model_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quantised keys and values are finite, whatever they were made of:
    such a row went on with tokens made up."""
    for module in (scheduler, sequence):
        monkeypatch.setattr(module, "PREFILL_CHUNK", 16)
    monkeypatch.setattr(scheduler, "MAX_PREFILL_TOKENS", 16)
    engine = make_engine(tiny_model_dirs["llama"], quantize=quantize)
    prompts = [[*PROMPTS[1][:3], 700, *PROMPTS[1][3:]], *PROMPTS]
    expected = generate(engine, prompts)
    poison(engine, 700)
    hit = {"0"} | {key for key, c in expected.items() if 700 in c.completion_token_ids[:-1]}
    completions = generate(engine, prompts)
    assert {key for key, c in completions.items() if c.finish_reason == "error"} == hit
    assert "completion token 1 must be finite" in completions["0"].error_message
    assert len(hit) < len(completions) == len(prompts)
    for key in completions.keys() - hit:
        assert completions[key].completion_token_ids == expected[key].completion_token_ids


def test_an_overflow_of_float16_is_an_error(tiny_model_dirs: dict[str, Path]) -> None:
    """The model passes the checks of loading, and leaves the range of its type later."""
    engine = make_engine(tiny_model_dirs["qwen2"], dtype="float16")
    engine._model.decoder.norm.weight *= 60_000
    completions = generate(engine)
    assert {c.error_type for c in completions.values()} == {"NonFiniteLogitsError"}
    assert "dtype, float16" in completions["0"].error_message
