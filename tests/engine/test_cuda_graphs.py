"""What CUDA graphs rest on, and, on a GPU, that they change nothing."""

from pathlib import Path

import pytest
import torch

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.cuda_graphs import graph_size
from dynts_batch.records import Request

REQUESTS = [Request(str(i), prompt_token_ids=list(range(10, 14 + i))) for i in range(7)]


def make_engine(folder: Path) -> Engine:
    sampling = SamplingConfig(temperature=0.9, max_new_tokens=60)
    policy = PolicyConfig(name="random", budget=24, window_size=6)
    return Engine.load(ModelConfig(name=str(folder)), policy, sampling, MemoryConfig(max_seqs=5))


def test_a_graph_is_at_most_an_eighth_larger_than_its_batch() -> None:
    sizes = [graph_size(n, 1000) for n in range(1, 1001)]
    assert sizes == sorted(sizes)
    assert sizes[:15] == list(range(1, 16))
    assert all(n <= size <= n * 9 / 8 for n, size in enumerate(sizes, start=1))
    assert len(set(sizes)) < 70
    assert graph_size(10, 10) == graph_size(9, 9) + 1
    assert graph_size(33, 34) == 34


def test_a_decode_step_done_again_changes_nothing(tiny_model_dirs: dict[str, Path]) -> None:
    """The step that warms a graph up runs twice, and lanes that hold nothing run along."""
    engine = make_engine(tiny_model_dirs["qwen2"])
    for request in REQUESTS:
        engine.add_request(request)
    for _ in range(5):
        engine.step()
    with torch.inference_mode():
        first = engine._runner.next_tokens(5, 24, is_ragged=True)
        state = [
            tensor.clone() for tensor in (*engine.arena.stored(1, 5, 24), engine.arena.positions)
        ]
        again = engine._runner.next_tokens(5, 24, is_ragged=True)
    assert torch.equal(first, again)
    after = (*engine.arena.stored(1, 5, 24), engine.arena.positions)
    assert all(torch.equal(a, b) for a, b in zip(state, after, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_oss"])
def test_graphs_change_no_token(architecture: str, tiny_model_dirs: dict[str, Path]) -> None:
    engine = make_engine(tiny_model_dirs[architecture])
    with_graphs = {c.request_id: c.completion_token_ids for c in engine.generate(REQUESTS)}
    engine._runner.graphs = None
    without = {c.request_id: c.completion_token_ids for c in engine.generate(REQUESTS)}
    assert with_graphs == without
