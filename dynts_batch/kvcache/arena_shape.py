"""What determines an arena's size, before it is allocated: layers, heads, formats and columns."""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import torch

from dynts_batch.kvcache.stores.formats import GROUP, NVFP4, KVFormat

POSITION_BYTES = torch.int32.itemsize


class Column(NamedTuple):
    """One float32 value for every stored token. It moves with the token."""

    name: str
    per_head: bool = False
    """Each layer and KV head has its own value. If false, they share one, unless the policy keeps
    other tokens in each: then every column is separate too."""
    coarse_value: float | None = None
    """The value that marks tokens whose keys and values may be stored more coarsely."""

    @property
    def bytes_per_value(self) -> int:
        return torch.float32.itemsize


@dataclass(frozen=True)
class ArenaShape:
    """What determines the arena's size.

    `columns`: the per-slot values that a policy needs. `num_queries`: how many of the newest
    queries each lane remembers for the policy, of `num_query_heads` heads. `stored_in`: the formats
    of stored keys and values; None: they are stored as they are. Formats need a head_dim that is a
    multiple of 16. The newest tokens, fewer than 16, stay as they are.
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
        """The column that says which groups are stored in TERNARY; None: no group is."""
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
        """Stored keys and values of one token in all layers, scales included if they are quantised.

        A ternary group takes the room of any other group, and leaves half of its codes unused.
        """
        if self.stored_in is None:
            return self.kv_bytes_per_token
        numbers = self.num_layers * self.num_kv_heads * self.head_dim
        return int(numbers * sum(form.bits_per_number for form in self.stored_in)) // 8

    @property
    def bytes_per_token(self) -> int:
        """Bytes of one stored token: keys, values, position and columns."""
        num_bytes = self.stored_bytes_per_token + prod(self.granularity) * POSITION_BYTES
        for column in self.columns:
            num_bytes += prod(self.granularity_of(column)) * column.bytes_per_value
        return num_bytes

    def peak_kv_bytes(self, peak_cache_len: int) -> int:
        """Most bytes that a lane's keys and values took while it grew to `peak_cache_len`
        tokens."""
        if self.stored_in is None:
            return peak_cache_len * self.kv_bytes_per_token
        packed = peak_cache_len // GROUP * GROUP
        now = packed * self.stored_bytes_per_token
        now += (peak_cache_len - packed) * self.kv_bytes_per_token
        if not packed:
            return now
        # The peak: one token before the newest group was packed.
        before = (packed - GROUP) * self.stored_bytes_per_token
        return max(now, before + (GROUP - 1) * self.kv_bytes_per_token)

    def bytes_per_sequence(self, capacity: int) -> int:
        """Bytes of a lane of `capacity` slots: keys, values, positions, columns, remembered
        queries."""
        query_bytes = self.num_query_heads * self.head_dim * self.dtype.itemsize
        num_bytes = (
            capacity * self.bytes_per_token + self.num_layers * self.num_queries * query_bytes
        )
        if self.stored_in is None:
            return num_bytes
        # The last slots make no whole group. Added are the buffer, a mark per group if some may be
        # ternary, and the copy of cache_len.
        num_bytes -= capacity % GROUP * self.stored_bytes_per_token
        marks = 0
        if self.coarse_column is not None:
            heads = self.granularity_of(self.coarse_column)[1]
            marks = capacity // GROUP * self.num_layers * heads
        return num_bytes + GROUP * self.kv_bytes_per_token + marks + 8
