"""What is recorded of attention, against the model's own attention matrices,
from Hugging Face's eager attention."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_models import ARCHITECTURES
from transformers import AutoModelForCausalLM

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.kvcache.policies import POLICIES, register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.view import LayerSlots, Slots
from dynts_batch.records import Request

NUM_QUERIES, BUDGET = 16, 40


@dataclass(frozen=True)
class Seen:
    """What a policy saw of a row: its own copies."""

    cache_len: int
    num_processed: int
    positions: torch.Tensor
    received: torch.Tensor
    newest: list[torch.Tensor]


@pytest.fixture
def seen() -> Iterator[dict[int, list[Seen]]]:
    """By lane, what a policy saw at each eviction; the policy is registered as "probe"."""
    by_lane: dict[int, list[Seen]] = {}

    @register("probe")
    @dataclass(frozen=True)
    class Probe(HeadwisePolicy):
        requires = ("attention",)
        num_queries = NUM_QUERIES

        def score(self, slots: Slots) -> torch.Tensor:
            layers = range(slots.arena.shape.num_layers)
            newest = [slots.layer(layer).attention(NUM_QUERIES) for layer in layers]
            for row, lane in enumerate(slots.lanes.tolist()):
                by_lane.setdefault(lane, []).append(
                    Seen(
                        int(slots.cache_len[row]),
                        int(slots.seq_len[row]) - 1,
                        slots.positions[row],
                        slots.column("attention")[row],
                        [attention[row] for attention in newest],
                    )
                )
            return slots.column("attention")

        def score_layer(self, layer: LayerSlots) -> torch.Tensor:
            raise AssertionError("score needs no layer")

    yield by_lane
    del POLICIES["probe"]


def generate(folder: Path, policy: PolicyConfig, prompts: list[list[int]]) -> list[list[int]]:
    """Prompt and completion of each, which are run in lane 0, 1, ..."""
    engine = Engine.load(
        ModelConfig(name=str(folder)),
        policy,
        SamplingConfig(temperature=0.0, max_new_tokens=60),
        MemoryConfig(max_seqs=len(prompts)),
    )
    requests = [Request(str(i), prompt_token_ids=prompt) for i, prompt in enumerate(prompts)]
    found = {c.request_id: list(c.completion_token_ids) for c in engine.generate(requests)}
    return [prompt + found[str(i)] for i, prompt in enumerate(prompts)]


def eager_attention(
    folder: Path, token_ids: list[int], mask: torch.Tensor | None = None
) -> list[torch.Tensor]:
    """By layer, [heads, tokens, tokens]."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    with torch.no_grad():
        output = model(torch.tensor([token_ids]), attention_mask=mask, output_attentions=True)
    return [attention[0] for attention in output.attentions]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_recorded_attention_equals_the_models_own(
    architecture: str, tiny_model_dirs: dict[str, Path], seen: dict[int, list[Seen]]
) -> None:
    """At the first eviction nothing is gone yet.
    Prompts of several lengths, one of them shorter than the queries kept."""
    folder = tiny_model_dirs[architecture]
    prompts = [list(range(10, 10 + length)) for length in (3, 30, 17)]
    policy = PolicyConfig(name="probe", budget=BUDGET, window_size=8)
    sequences = generate(folder, policy, prompts)
    assert seen.keys() == {0, 1, 2}
    for lane, (first, *_) in seen.items():
        assert first.num_processed == first.cache_len == BUDGET
        attentions = eager_attention(folder, sequences[lane][:BUDGET])
        for layer, attention in enumerate(attentions):
            grouped = attention.view(2, 2, BUDGET, BUDGET)  # 2 KV heads of 2 query heads each
            torch.testing.assert_close(
                first.received[layer], grouped.sum(dim=(1, 2)), atol=1e-5, rtol=1e-5
            )
            torch.testing.assert_close(
                first.newest[layer], grouped[:, :, -NUM_QUERIES:], atol=1e-5, rtol=1e-5
            )


def test_sums_go_with_their_tokens_through_many_evictions(
    tiny_model_dirs: dict[str, Path], seen: dict[int, list[Seen]]
) -> None:
    """A slow replay: the whole text once, each token under a mask that
    hides what had been evicted before it."""
    folder = tiny_model_dirs["llama"]
    policy = PolicyConfig(name="probe", budget=24, window_size=6, options={"shared_index": True})
    (token_ids,) = generate(folder, policy, [list(range(10, 15))])
    length = len(token_ids) - 1
    mask = torch.full((length, length), -torch.inf).triu(1)
    for before, after in zip(seen[0], seen[0][1:], strict=False):
        gone = set(before.positions.flatten().tolist()) - set(after.positions.flatten().tolist())
        mask[before.num_processed :, sorted(gone)] = -torch.inf
    last = seen[0][-1]
    assert len(seen[0]) >= 3
    attentions = torch.stack(eager_attention(folder, token_ids[:-1], mask[None, None]))
    # Two query heads a KV head: a KV head's sum is over both,
    # and the shared column is the mean over KV heads.
    received = 2 * attentions[:, :, : last.num_processed].mean(dim=(0, 1)).sum(dim=0)
    torch.testing.assert_close(
        last.received[0, 0], received[last.positions[0, 0].long()], atol=1e-4, rtol=1e-4
    )
