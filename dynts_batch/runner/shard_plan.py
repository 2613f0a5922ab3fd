"""Which units a run has and how they are cut into shards: arithmetic, nothing else.

rows      |  row 0  |  row 1  |  row 2  |       a unit is one sample of one row
units     | 0  1  2 | 3  4  5 | 6  7  8 |       num_samples = 3
shards    |    0    .    1    .  |   2  |       shard_rows = 4
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """The units of `num_rows` source rows, `num_samples` each, in shards of `shard_rows` units.

    A pure function of what is given, so every process of a run, and every later run that resumes
    it, has the same shards.
    """

    num_rows: int
    num_samples: int
    shard_rows: int
    in_turn: bool = False
    """Samples of a row wait for earlier ones (sampling.stop_when);
    a shard then holds whole rows."""

    @property
    def num_units(self) -> int:
        """Rows of the output."""
        return self.num_rows * self.num_samples

    @property
    def num_shards(self) -> int:
        """Files of the output."""
        return -(-self.num_units // self.shard_rows)

    def units(self, shard: int) -> range:
        """The units of `shard`."""
        assert 0 <= shard < self.num_shards, (shard, self.num_shards)
        start = shard * self.shard_rows
        return range(start, min(start + self.shard_rows, self.num_units))

    def row_and_sample(self, unit: int) -> tuple[int, int]:
        """The source row of `unit`, and which of its samples it is."""
        return divmod(unit, self.num_samples)

    def earlier_samples(self, unit: int) -> range:
        """The units that `unit` may have to wait for."""
        start = unit - unit % self.num_samples if self.in_turn else unit
        return range(start, unit)

    def later_samples(self, unit: int) -> range:
        """The units that may have to wait for `unit`."""
        stop = unit - unit % self.num_samples + self.num_samples if self.in_turn else unit + 1
        return range(unit + 1, stop)

    def is_among(self, unit: int, num_units: int) -> bool:
        """Whether `unit` is one of `num_units` units that are spread evenly over the run,
        and are run in any case."""
        place, num_places = unit, self.num_units
        if self.in_turn:
            (place, sample_index), num_places = self.row_and_sample(unit), self.num_rows
            if sample_index > 0:
                return False
        wanted = min(num_units, num_places)
        return place * wanted // num_places < (place + 1) * wanted // num_places

    def rows(self, shard: int) -> range:
        """The source rows that the units of `shard` come from; neighbours may share one."""
        units = self.units(shard)
        return range(units[0] // self.num_samples, units[-1] // self.num_samples + 1)
