"""Random packed stores of ragged lanes, and attention over what they dequantise to written out,
for the decode kernels."""

from dataclasses import dataclass

import torch

from dynts_batch.engine.attention.decode_query import DecodeQuery
from dynts_batch.kvcache.layer_states import AttentionRule
from dynts_batch.kvcache.probs import additive_mask, attention_probs
from dynts_batch.kvcache.stores.formats import KV_FORMATS
from dynts_batch.kvcache.stores.packed import PackedStore

NEWEST = 400


@dataclass
class PackedCase:
    """`lengths` [B] of the lanes, one after another; a last lane holds nothing."""

    lengths: torch.Tensor
    head_dim: int = 64
    group: int = 2
    num_kv_heads: int = 2
    name: str = "nvfp4"
    per_head: bool = False
    has_ternary: bool = False
    dtype: torch.dtype = torch.float32
    seed: int = 0

    def __post_init__(self) -> None:
        torch.manual_seed(self.seed)
        rows, heads, capacity = len(self.lengths), self.num_kv_heads, int(self.lengths.max()) + 5
        self.store = PackedStore(
            (rows + 1, heads, capacity, self.head_dim),
            self.dtype,
            torch.cat((self.lengths, torch.tensor([0]))),
            form=KV_FORMATS[self.name],
            num_marks=self.has_ternary * (heads if self.per_head else 1),
        )
        states = torch.randn(2, rows, heads, capacity, self.head_dim)
        # Channels far from 0 beside others, as biases make them.
        states += torch.randn(2, 1, heads, 1, self.head_dim) * 4
        states *= 10.0 ** torch.randint(-3, 1, (2, rows, heads, capacity, 1))
        coarse = torch.rand(rows, heads if self.per_head else 1, capacity // 16 + 1) < 0.5
        marks = coarse.repeat_interleave(16, -1)[..., :capacity] if self.has_ternary else None
        self.store._write(torch.arange(rows), 0, self.lengths, states.to(self.dtype), marks)
        self.query = (torch.randn(rows, heads * self.group, 1, self.head_dim) * 3).to(self.dtype)
        self.positions = torch.full((rows,), NEWEST)
        shared = heads if self.per_head else 1
        stored = torch.rand(rows, shared, NEWEST).argsort(-1)[..., :capacity].sort(-1).values
        # As in the arena, the newest token stands at its own position.
        newest = (self.lengths - 1)[:, None, None].expand(-1, shared, 1)
        self.stored_positions = stored.scatter(-1, newest, NEWEST).int()

    def asked(self, rule: AttentionRule) -> DecodeQuery:
        return DecodeQuery(
            self.query, self.lengths - 1, self.positions, self.stored_positions, rule
        )

    def written_out(self, rule: AttentionRule) -> torch.Tensor:
        """In float32."""
        longest = int(self.lengths.max())
        visible = torch.arange(longest) < self.lengths[:, None, None]
        if rule.sliding_window is not None:
            stored = self.stored_positions[..., :longest]
            visible = visible & (stored > NEWEST - rule.sliding_window)
        keys, values = (part.float() for part in self.store.stored(len(self.lengths), longest))
        mask = additive_mask(visible[:, :, None], torch.float32)
        probs = attention_probs(self.query.float(), keys, mask, rule)
        return torch.einsum("rhgts,rhsd->rhgtd", probs, values).view(self.query.shape)

    def forget_the_dead(self) -> None:
        """Fill all that must not be read with what would show:
        NaN in buffers, the largest codes, scales and marks."""
        for lane, length in enumerate(self.store.cache_len.tolist()):
            self.store.codes[:, lane, :, length // 16 :] = 255
            self.store.scales[:, lane, :, length // 16 :] = 255
            if self.store.zero_points is not None:
                self.store.zero_points[lane, :, length // 16 :] = 32767
            self.store.buffer[:, lane, :, length % 16 :] = torch.nan
