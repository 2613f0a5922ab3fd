"""Expected attention: tokens that coming queries will attend to stay, as far as statistics predict,
and tokens unlike the others."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.native import can_run_both, function, padded
from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policy import HeadwisePolicy
from dynts_batch.kvcache.query_stats import QueryStats, as_numbers
from dynts_batch.kvcache.view import LayerSlots

SOURCE = "expected.c"
#: Each predicted query is this many times as far ahead as the one before it.
_STEP = 4


@register("expected")
@dataclass(frozen=True)
class Expected(HeadwisePolicy):
    """Keeps the candidates that will add most to the output of attention, and the unlike ones, per
    layer and KV head.

    A score is x + `unlikeness` * y; each of x and y is a candidate's share of all candidates.

    x: the expected attention of coming queries times the length of the value. The queries are
    1, 4, 16, ... and at most `horizon` tokens ahead; the mean over them and over the query heads of
    the group counts. Queries are modelled as normal around their mean, with one variance for the
    two numbers of a pair. Then the mean of exp(q.k) is exp(mean.k + variance of q.k / 2), and a
    softmax over the candidates follows. The statistics are measured on a text while the model is
    loaded. No query is read during decoding.

    y: the squared distance of the key from the mean key, times the squared length of the value. A
    softmax leaves many candidates next to nothing, and they are the ones of which some can stay.
    A query that the statistics do not foresee can tell apart only keys that are unlike.

    The method is ours and joins three ideas. A head's queries stay near their mean before RoPE
    (TriAttention, arXiv 2604.04921). Attention can be foretold from them (Expected Attention, arXiv
    2510.00636). Keys and values have leverage (CUR, as in kvpress). It also decides about the
    prompt, unless `protect_prompt` is true; the first `num_sink_tokens` stay.
    """

    protects_prompt: ClassVar[bool] = False

    horizon: int = 1024
    """Farthest predicted query, in tokens ahead. At least 1."""
    unlikeness: float = 0.5
    """Weight of being unlike the other candidates beside the expected attention. At least 0."""
    num_sink_tokens: int = 4
    """First tokens of a sequence, which stay. At least 0."""

    def __post_init__(self) -> None:
        for name, least in (("horizon", 1), ("unlikeness", 0), ("num_sink_tokens", 0)):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= least):
                raise ConfigError(f"policy.{name} must be at least {least}, got {value}")
        super().__post_init__()

    @property
    def num_sinks(self) -> int:
        return self.num_sink_tokens

    @property
    def companions(self) -> frozenset[type]:
        return frozenset({QueryStats})

    @property
    def distances(self) -> list[int]:
        """How many tokens after the newest stored one the predicted queries are."""
        distances = [1]
        while (farther := distances[-1] * _STEP) <= self.horizon:
            distances.append(farther)
        return distances

    def score_layer(self, layer: LayerSlots) -> torch.Tensor:
        if _runs_in_c(layer):
            return self._in_c(layer)
        is_candidate, keys = layer.is_candidate, layer.keys.float()  # [N, 1, C], [N, H, C, D]
        squares = keys.square()
        logits = self._logits(layer, keys, squares)
        logits.masked_fill_(~is_candidate[:, :, None, None], -torch.inf)
        # A sliding-window layer may hide every candidate from a query.
        attention = logits.softmax(dim=-1).nan_to_num_().mean(dim=(2, 3))  # [N, H, C]
        lengths = layer.values.norm(dim=-1, dtype=torch.float32)
        unlike = _from_mean(keys, squares, is_candidate) * lengths.square()
        shares = _shares(attention * lengths, is_candidate)
        return shares + self.unlikeness * _shares(unlike, is_candidate)

    def _in_c(self, layer: LayerSlots) -> torch.Tensor:
        slots, shape = layer.slots, layer.slots.arena.shape
        queries, variances = self._queries(layer, self._positions(layer))
        num_queries, group = queries.shape[2:4]
        capacity, threads = slots.arena.capacity, torch.get_num_threads()
        stride = padded(capacity)
        scratch = torch.empty(threads * (num_queries * group + group + 3) * stride)
        keys, values, lanes = layer.in_place()
        parts = torch.tensor([[layer.data_ptr() for layer in part] for part in (keys, values)])
        scores = torch.empty(len(queries), shape.num_kv_heads, capacity)
        end = slots.cache_len - slots.num_last
        function(SOURCE, "expected_scores", "ppppppppp" "llllllllll" "f")(
            scores.data_ptr(), *(part.data_ptr() for part in parts), lanes.data_ptr(),
            queries.data_ptr(), variances.data_ptr(), slots.num_first.data_ptr(), end.data_ptr(),
            scratch.data_ptr(), len(keys), len(lanes), shape.num_kv_heads, capacity, num_queries,
            group, shape.head_dim, stride, shape.dtype == torch.bfloat16, threads, self.unlikeness,
        )  # fmt: skip
        return scores

    def _positions(self, layer: LayerSlots) -> torch.Tensor:
        """Where the T predicted queries are, [N, T]."""
        distances = torch.tensor(self.distances, device=layer.slots.lanes.device)
        return layer.of_rows(layer.slots.seq_len)[:, None] - 2 + distances

    def _queries(
        self, layer: LayerSlots, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The queries predicted at `positions` [N, T], [N, H, T, G, D], and half the variance of
        their numbers, [N, H, G, D]; both scaled."""
        stats, num_kv_heads = layer.query_stats, layer.slots.arena.shape.num_kv_heads
        scale = stats.rule.scale
        queries = scale * as_numbers(stats.at(positions))
        variances = scale**2 / 2 * stats.variances
        queries = queries.unflatten(-2, (num_kv_heads, -1)).transpose(1, 2)
        return queries.contiguous(), variances.unflatten(1, (num_kv_heads, -1))

    def _logits(self, layer: LayerSlots, keys: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
        """log E exp(q.k) of the T predicted queries, [N, H, T, G, C]."""
        positions = self._positions(layer)
        queries, variances = self._queries(layer, positions)
        logits = (queries.flatten(2, 3) @ keys.transpose(2, 3)).view(*queries.shape[:4], -1)
        logits += (variances @ squares.transpose(2, 3))[:, :, None]  # [N, H, 1, G, C]
        if (window := layer.query_stats.rule.sliding_window) is None:
            return logits
        distance = positions[:, None, :, None] - layer.positions[:, :, None]  # [N, H or 1, T, C]
        return logits.masked_fill_((distance >= window)[:, :, :, None], -torch.inf)


def _runs_in_c(layer: LayerSlots) -> bool:
    shape, device = layer.slots.arena.shape, layer.slots.lanes.device
    slides = layer.query_stats.rule.sliding_window is not None
    return not slides and can_run_both(SOURCE, shape.dtype, device, shape.head_dim)


def _from_mean(
    keys: torch.Tensor, squares: torch.Tensor, is_candidate: torch.Tensor
) -> torch.Tensor:
    """Squared distance of each key from the mean key of the candidates, [N, H, C].

    As |k|^2 - 2 k.m + |m|^2, since copies of all keys cost more than two products.
    """
    weight = is_candidate / is_candidate.sum(dim=-1, keepdim=True)  # [N, 1, C]
    mean = weight[:, :, None] @ keys  # [N, H, 1, D]
    products = (keys @ mean.transpose(2, 3)).squeeze(-1)
    distance = squares.sum(dim=-1) - 2 * products + mean.square().sum(dim=-1)
    return distance.clamp(min=0)


def _shares(scores: torch.Tensor, is_candidate: torch.Tensor) -> torch.Tensor:
    """Scores [N, H, C] divided by the sum over the candidates."""
    scores = scores * is_candidate
    return scores / scores.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
