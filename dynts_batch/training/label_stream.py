"""Labelled tokens as training batches, streamed, because all traces would not fit in memory.

Owns the split by question and the shuffling. Knows nothing about targets or losses.
"""

import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from dynts_batch.kvcache.predictor import place_of
from dynts_batch.training.label_dir import LabelDir, LabelledTrace

Part = Literal["train", "validation", "held_out"]


@dataclass(frozen=True)
class Split:
    """Which questions train, which stop the training, and which serve only for measuring.

    The draw is by request_id. So all traces of a question are in one part, whatever the order of
    files.
    """

    held_out: float
    validation: float
    seed: int

    def part(self, request_id: str) -> Part:
        digest = hashlib.blake2b(f"{self.seed}\0{request_id}".encode(), digest_size=7).digest()
        draw = int.from_bytes(digest, "little") / 2**56
        if draw < self.held_out:
            return "held_out"
        return "validation" if draw < self.held_out + self.validation else "train"


@dataclass(frozen=True)
class TokenBatch:
    """N tokens of several traces.

    hidden_states: [N, hidden_size] float32.
    places: [N, PLACE_SIZE].
    labels: [N].
    traces: [N], equal for tokens of one trace.
    """

    hidden_states: torch.Tensor
    places: torch.Tensor
    labels: torch.Tensor
    traces: torch.Tensor


class LabelStream:
    """The labels of a directory, divided by a split."""

    def __init__(self, label_dir: LabelDir, split: Split) -> None:
        self._label_dir, self._split = label_dir, split

    def traces(self, part: Part, *, shuffle_seed: int | None = None) -> Iterator[LabelledTrace]:
        """The traces of one part, in the order of the run, or by file in shuffled order."""
        shards = self._label_dir.finished_shards()
        if shuffle_seed is not None:
            random.Random(shuffle_seed).shuffle(shards)
        for shard in shards:
            for trace in self._label_dir.read(shard):
                if self._split.part(trace.request_id) == part:
                    yield trace

    def batches(
        self, tokens_per_batch: int, shuffle_tokens: int, seed: int
    ) -> Iterator[TokenBatch]:
        """The training tokens once, in an order that `seed` gives.

        About `shuffle_tokens` at a time are mixed.
        """
        generator = torch.Generator().manual_seed(seed)
        for pool in self._pools(shuffle_tokens, seed):
            order = torch.randperm(len(pool.labels), generator=generator)
            for index in order.split(tokens_per_batch):
                yield TokenBatch(
                    pool.hidden_states[index].float(),
                    pool.places[index],
                    pool.labels[index],
                    pool.traces[index],
                )

    def _pools(self, shuffle_tokens: int, seed: int) -> Iterator[TokenBatch]:
        held: list[LabelledTrace] = []
        for trace in self.traces("train", shuffle_seed=seed):
            held.append(trace)
            if sum(len(t.hidden_positions) for t in held) >= shuffle_tokens:
                yield _pool(held)
                held = []
        if held:
            yield _pool(held)


def places(trace: LabelledTrace) -> torch.Tensor:
    """`place_of` the tokens that have hidden states, [N, PLACE_SIZE]."""
    prompt_tokens = torch.tensor(trace.prompt_tokens)
    return place_of(prompt_tokens + torch.tensor(trace.hidden_positions), prompt_tokens)


def tensors(trace: LabelledTrace) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Hidden states [N, hidden_size], places [N, PLACE_SIZE] and labels [N] of the same tokens."""
    labels = torch.tensor(trace.labels[trace.hidden_positions])
    return torch.tensor(trace.hidden_states), places(trace), labels


def _pool(traces: list[LabelledTrace]) -> TokenBatch:
    states, where, labels = zip(*(tensors(trace) for trace in traces), strict=True)
    lengths = torch.tensor([len(x) for x in labels])
    numbers = torch.arange(len(traces)).repeat_interleave(lengths)
    return TokenBatch(torch.cat(states), torch.cat(where), torch.cat(labels), numbers)
