"""A recorded decode step changes no token, and a step that depends on values is not recorded."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.attention import native as native_attention
from dynts_batch.engine.decoding import recorded_steps
from dynts_batch.engine.decoding.recorded_steps import RecordedSteps
from dynts_batch.engine.sampling import RUN, sample
from dynts_batch.kvcache.native import can_run
from dynts_batch.records import Request

REQUESTS = [Request(str(i), prompt_token_ids=list(range(10, 14 + i))) for i in range(5)]


@pytest.mark.skipif(
    not can_run(native_attention.SOURCE, torch.float32, torch.device("cpu"), 16),
    reason="no C compiler here",
)
@pytest.mark.parametrize(
    ("architecture", "policy", "quantize", "numbers"),
    [
        pytest.param("llama", "random", False, {}, marks=pytest.mark.long),
        pytest.param("llama", "random", True, {}, marks=pytest.mark.long),
        pytest.param("qwen2", "full", False, {}, marks=pytest.mark.long),
        pytest.param("qwen3", "streaming", False, {}, marks=pytest.mark.long),
        ("gpt_oss", "random", False, {}),
        pytest.param("llama", "tova", False, {}, marks=pytest.mark.long),
        ("qwen3", "rkv", True, {}),
        pytest.param("qwen2", "random", False, {"dtype": "bfloat16"}, marks=pytest.mark.long),
        pytest.param(
            *("llama", "random", False, {"dtype": "bfloat16", "weights": "int8"}),
            marks=pytest.mark.skipif(
                not torch.cpu.get_capabilities().get("avx2", False),
                reason="this CPU does not multiply in 8 bits",
            ),
        ),
    ],
)
def test_recording_changes_no_token(
    architecture: str,
    policy: str,
    quantize: bool,
    numbers: dict[str, Any],
    tiny_model_dirs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through evictions, retirements and admissions;
    each batch size is recorded after its third step."""
    monkeypatch.setattr(recorded_steps, "RECORD_AFTER", 3)
    budget = None if policy == "full" else 24
    engine = Engine.load(
        ModelConfig(name=str(tiny_model_dirs[architecture]), **numbers),
        PolicyConfig(name=policy, budget=budget, window_size=6, quantize=quantize),
        SamplingConfig(temperature=0.9, max_new_tokens=36),
        MemoryConfig(max_seqs=3),
    )
    steps = engine._runner.graphs
    assert isinstance(steps, RecordedSteps)
    recorded = {c.request_id: c.completion_token_ids for c in engine.generate(REQUESTS)}
    is_recordable = architecture != "gpt_oss"  # its experts are chosen by values
    assert (3 in steps._recorded) == is_recordable
    assert not any("ops.dynts_batch." in each.code for each in steps._recorded.values())
    engine._runner.graphs = None
    plain = {c.request_id: c.completion_token_ids for c in engine.generate(REQUESTS)}
    assert recorded == plain


@pytest.mark.parametrize(
    "choose",
    [
        lambda values: values[values > 0].sum(),
        lambda values: values * 2 if values.sum() > 0 else values,
        lambda values: values * values.max().item(),
        lambda values: sum(values[index] for index in values.nonzero().flatten().tolist()),
        lambda values: torch.tensor((values + 1).tolist()),  # no operation of torch's
    ],
)
def test_a_step_that_depends_on_values_is_run_as_it_is(choose, monkeypatch) -> None:
    monkeypatch.setattr(recorded_steps, "RECORD_AFTER", 1)
    values = torch.tensor([1.0, -1.0, 2.0])
    steps = RecordedSteps(lambda num_lanes: torch.as_tensor(choose(values[:num_lanes])))
    for factor in (1, 2, -1, -1, 3):
        values *= factor
        assert torch.equal(steps.run(3), torch.as_tensor(choose(values)))
    assert not steps._recorded


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingConfig(temperature=0.0, max_new_tokens=9, logprobs=True),
        SamplingConfig(temperature=0.6, top_k=20, top_p=0.9, min_p=0.01, max_new_tokens=9),
    ],
)
def test_greedy_and_drawn_tokens_are_recorded(
    monkeypatch: pytest.MonkeyPatch, sampling: SamplingConfig
) -> None:
    """So many logits that the largest is searched in runs, as of a real model."""
    monkeypatch.setattr(recorded_steps, "RECORD_AFTER", 1)
    logits, keys = torch.randn(3, 8 * RUN), torch.arange(3)

    def step(num_lanes: int) -> torch.Tensor:
        rows = slice(0, num_lanes)
        return sample(logits[rows], sampling, keys[rows], keys[rows])[0]

    steps = RecordedSteps(step)
    for _ in range(4):
        logits.normal_()
        assert torch.equal(steps.run(3), step(3))
    assert 3 in steps._recorded


def test_the_newest_batch_sizes_are_kept_and_a_lost_one_can_come_back(monkeypatch) -> None:
    monkeypatch.setattr(recorded_steps, "RECORD_AFTER", 1)
    values = torch.arange(20)
    steps = RecordedSteps(lambda num_lanes: values[:num_lanes] * 2)
    for num_lanes in range(1, 12):
        for _ in range(3):
            assert torch.equal(steps.run(num_lanes), values[:num_lanes] * 2)
    assert list(steps._recorded) == list(range(4, 12))
    for _ in range(3):
        assert torch.equal(steps.run(1), values[:1] * 2)
    assert 1 in steps._recorded
