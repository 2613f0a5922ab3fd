"""What an arena's size follows from, before there is one: layers, heads, formats and the columns that go along."""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch

from dynts_batch.kvcache.stores.formats import GROUP, NVFP4, KVFormat

POSITION_BYTES = torch.int32.itemsize


class Column(NamedTuple):
    """One float32 value for every stored token, which moves with it."""

    name: str
    per_head: bool = False
    """Each layer and KV head has its own. If not, they have one together, unless the policy keeps tokens of their own for
    each: a column always tells those apart."""
    coarse_value: float | None = None
    """The value of tokens whose keys and values may be stored more coarsely than others."""

    @property
    def bytes_per_value(self) -> int:
        return torch.float32.itemsize


@dataclass(frozen=True)
class ArenaShape:
    """What the arena's size follows from.

    `columns`: the per-slot values that a policy needs. `num_queries`: how many of the newest queries of its
    `num_query_heads` heads each lane remembers for the policy. `stored_in`: the formats of stored keys and values but
    for the newest tokens, fewer than 16, which are stored as they are; head_dim is a multiple of 16 then. None: all are.
    """

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    per_head: bool = False
    columns: tuple[Column, ...] = ()
    num_queries: int = 0
    num_query_heads: int = 0
    stored_in: KVFormat | None = None

    @property
    def granularity(self) -> tuple[int, int]:
        return (self.num_layers, self.num_kv_heads) if self.per_head else (1, 1)

    def granularity_of(self, column: Column) -> tuple[int, int]:
        """How many layers and heads the column tells apart."""
        return (self.num_layers, self.num_kv_heads) if column.per_head else self.granularity

    @property
    def coarse_column(self) -> Column | None:
        """What says which groups are stored in TERNARY; None: no group is."""
        if self.stored_in is None or self.stored_in.keys != NVFP4:
            return None
        return next((c for c in self.columns if c.coarse_value is not None), None)

    @property
    def state_bytes(self) -> int:
        """A token's keys, or values, of one layer in the model's own precision."""
        return self.num_kv_heads * self.head_dim * self.dtype.itemsize

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers, in the model's own precision."""
        return 2 * self.num_layers * self.state_bytes

    @property
    def stored_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers as they are stored, with scales where they are quantised. A
        ternary group is given the room of any other, and leaves half of its codes unused."""
        if self.stored_in is None:
            return self.kv_bytes_per_token
        numbers = self.num_layers * self.num_kv_heads * self.head_dim
        return int(numbers * sum(form.bits_per_number for form in self.stored_in)) // 8

    @property
    def bytes_per_token(self) -> int:
        """All that one stored token takes: keys, values, its position and the columns."""
        num_bytes = self.stored_bytes_per_token + prod(self.granularity) * POSITION_BYTES
        for column in self.columns:
            num_bytes += prod(self.granularity_of(column)) * column.bytes_per_value
        return num_bytes

    def peak_kv_bytes(self, peak_cache_len: int) -> int:
        """The most that keys and values of a lane took while it grew to `peak_cache_len` tokens."""
        if self.stored_in is None:
            return peak_cache_len * self.kv_bytes_per_token
        packed = peak_cache_len // GROUP * GROUP
        now = packed * self.stored_bytes_per_token
        now += (peak_cache_len - packed) * self.kv_bytes_per_token
        if not packed:
            return now
        # One token before the newest group was packed.
        before = (packed - GROUP) * self.stored_bytes_per_token
        return max(now, before + (GROUP - 1) * self.kv_bytes_per_token)

    def bytes_per_sequence(self, capacity: int) -> int:
        """A lane of `capacity` slots: keys, values, positions, columns, and the queries it remembers."""
        query_bytes = self.num_query_heads * self.head_dim * self.dtype.itemsize
        num_bytes = (
            capacity * self.bytes_per_token + self.num_layers * self.num_queries * query_bytes
        )
        if self.stored_in is None:
            return num_bytes
        # The last slots make no group; a buffer; a mark for each group, where some may be ternary; the copy of cache_len.
        num_bytes -= capacity % GROUP * self.stored_bytes_per_token
        marks = 0
        if self.coarse_column is not None:
            heads = self.granularity_of(self.coarse_column)[1]
            marks = capacity // GROUP * self.num_layers * heads
        return num_bytes + GROUP * self.kv_bytes_per_token + marks + 8
