"""What CUDA graphs rest on, and, on a GPU, that they change nothing."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from asks_nothing import AsksNothing

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.attention import steps as attention
from dynts_batch.engine.decoding.cuda_graphs import DecodeGraphs, graph_size
from dynts_batch.engine.decoding.decode_inputs import DecodeInputs
from dynts_batch.kvcache import devices
from dynts_batch.records import Request

REQUESTS = [Request(str(i), prompt_token_ids=list(range(10, 22 + i))) for i in range(7)]


def make_engine(
    folder: Path, name: str = "random", *, quantize: bool = False, max_new_tokens: int = 60
) -> Engine:
    sampling = SamplingConfig(temperature=0.9, max_new_tokens=max_new_tokens)
    policy = PolicyConfig(name, budget=24, window_size=6, quantize=quantize)
    return Engine.load(ModelConfig(name=str(folder)), policy, sampling, MemoryConfig(max_seqs=5))


def generate(engine: Engine, requests: Sequence[Request] = REQUESTS) -> dict[str, Any]:
    return {c.request_id: c.completion_token_ids for c in engine.generate(requests)}


@pytest.fixture
def interpreted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a GPU runs in Triton, Triton's interpreter runs here."""
    pytest.importorskip(
        "triton", reason="Triton comes with torch's GPU builds, and with the test extra"
    )
    if not torch.cuda.is_available():
        monkeypatch.setattr(devices, "runs_triton", lambda _: True)
        for module in ("triton_plain", "triton_packed"):
            name = f"dynts_batch.engine.attention.{module}.preferred_splits"
            monkeypatch.setattr(name, lambda *_: 1)
    chosen = (attention.packed_decode, attention.fused_decode)
    for choice in chosen:
        choice.cache_clear()
    yield
    for choice in chosen:
        choice.cache_clear()


def test_a_graph_is_at_most_an_eighth_larger_than_its_batch() -> None:
    sizes = [graph_size(n, 1000) for n in range(1, 1001)]
    assert sizes == sorted(sizes)
    assert sizes[:15] == list(range(1, 16))
    assert all(n <= size <= n * 9 / 8 for n, size in enumerate(sizes, start=1))
    assert len(set(sizes)) < 70
    assert graph_size(10, 10) == graph_size(9, 9) + 1
    assert graph_size(33, 34) == 34


@pytest.mark.parametrize(
    ("name", "quantize"), [("random", False), ("random", True), ("rkv", False)]
)
def test_a_decode_step_done_again_changes_nothing(
    name: str, quantize: bool, tiny_model_dirs: dict[str, Path], request: pytest.FixtureRequest
) -> None:
    """The step that warms a graph up runs twice, and lanes that hold nothing run along;
    one completes a group."""
    if quantize:
        request.getfixturevalue("interpreted")
    engine = make_engine(tiny_model_dirs["qwen2"], name, quantize=quantize)
    for each in REQUESTS[1:4]:
        engine.add_request(each)
    for _ in range(2):
        engine.step()
    assert 15 in engine._runner.inputs.slots[:3].tolist()
    arena = engine.arena

    def state() -> list[torch.Tensor]:
        stored = (*arena.stored(1, 5, 24), arena.positions, *arena._queries)
        return [tensor.clone() for tensor in stored]

    with torch.inference_mode():
        first, before = engine._runner.next_tokens(5, 24, is_ragged=True), state()
        again = engine._runner.next_tokens(5, 24, is_ragged=True)
    assert torch.equal(first, again)
    assert all(torch.equal(a, b) for a, b in zip(before, state(), strict=True))


@pytest.mark.parametrize(("name", "quantize"), [("random", True), ("rkv", False)])
def test_a_step_asks_nothing_of_the_host_quantised_or_with_queries_remembered(
    name: str, quantize: bool, tiny_model_dirs: dict[str, Path], interpreted: None
) -> None:
    """A copy of row numbers to the device, in every layer,
    kept five policies from graphs on a GPU."""
    engine = make_engine(tiny_model_dirs["qwen2"], name, quantize=quantize)
    assert engine._runner.graphs is not None
    assert attention.asks_nothing(engine.arena.shape, engine.arena.positions.device)
    for request in REQUESTS[:2]:
        engine.add_request(request)
    engine.step()
    with torch.inference_mode(), AsksNothing():
        engine._runner.next_tokens(5, 24, is_ragged=True)


def test_what_a_gpu_runs_changes_no_token_of_a_quantised_cache(
    tiny_model_dirs: dict[str, Path],
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through a completed group and an eviction."""
    folder = tiny_model_dirs["llama"]
    some = (REQUESTS[3], REQUESTS[6])
    with monkeypatch.context() as without:
        without.setattr(devices, "runs_triton", lambda _: False)
        attention.packed_decode.cache_clear()
        expected = generate(make_engine(folder, quantize=True, max_new_tokens=8), some)
    request.getfixturevalue("interpreted")
    assert generate(make_engine(folder, quantize=True, max_new_tokens=8), some) == expected


@pytest.fixture
def captures_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of CUDA's capture, which no CPU has: the step runs, and is not remembered."""
    stream = SimpleNamespace(wait_stream=lambda _: None)
    for name in ("current_stream", "Stream"):
        monkeypatch.setattr(torch.cuda, name, lambda: stream)
    for name in ("stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: nullcontext())
    for name in ("CUDAGraph", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)


class FailsOnce:
    """A step of which the second run, which is the one captured, fails."""

    def __init__(self, error: Exception) -> None:
        self.error, self.num_runs = error, 0

    def __call__(self, num_lanes: int) -> torch.Tensor:
        self.num_runs += 1
        if self.num_runs == 2:
            raise self.error
        return torch.zeros(num_lanes, dtype=torch.int64)


@pytest.mark.usefixtures("captures_nothing")
@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("out of memory")]
)
def test_memory_that_runs_out_in_a_capture_is_said_and_does_not_turn_graphs_off(
    error: Exception,
) -> None:
    """It was taken for a step that cannot be captured:
    the run went on without graphs, at a fraction of their speed."""
    graphs = DecodeGraphs(FailsOnce(error), DecodeInputs(4, torch.device("cpu")), 4)
    with pytest.raises(type(error)):
        graphs.run(3)
    assert graphs._can_capture


@pytest.mark.usefixtures("captures_nothing")
def test_a_step_that_asks_the_host_runs_without_graphs_from_then_on() -> None:
    step = FailsOnce(RuntimeError("operation not permitted when stream is capturing"))
    graphs = DecodeGraphs(step, DecodeInputs(4, torch.device("cpu")), 4)
    for _ in range(2):
        assert graphs.run(3).tolist() == [0, 0, 0]
    assert not graphs._can_capture
    assert step.num_runs == 4, "warmed up, captured, and then once for each run"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_oss"])
@pytest.mark.parametrize(
    ("name", "quantize"), [("random", False), ("random", True), ("rkv", False)]
)
def test_graphs_change_no_token(
    architecture: str, name: str, quantize: bool, tiny_model_dirs: dict[str, Path]
) -> None:
    engine = make_engine(tiny_model_dirs[architecture], name, quantize=quantize)
    with_graphs = generate(engine)
    engine._runner.graphs = None
    assert generate(engine) == with_graphs
