"""What the driver and its workers tell each other. Plain data: it is pickled between processes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import pyarrow as pa

from dynts_batch.config import Config
from dynts_batch.data.readers.source import SourceRow
from dynts_batch.errors import DyntsError, RowError


@dataclass(frozen=True)
class Job:
    """What every worker of a run is told once."""

    config: Config
    source_schema: pa.Schema
    num_gpus: float
    """What Ray gives each worker."""
    working_dir: str
    """The driver's, which relative paths in the configuration are relative to."""
    first_budget: int | None = None
    """Where rows run again with more room: the budget that they had. The configuration has the
    larger one."""


@dataclass(frozen=True, slots=True)
class Item:
    """One unit: a sample of a source row."""

    unit: int
    sample_index: int
    row: SourceRow
    error: RowError | None = None
    """Why it gets an error row without being run."""
    trace: bool = False
    """Record which tokens were evicted when."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A shard for a worker to run."""

    shard: int
    attempt: int
    items: tuple[Item, ...]
    """All units of the shard, in its order."""
    columns: pa.Buffer
    """The source's columns of their rows, from the first item's row on,
    see data/source_columns.py."""
    held_back: frozenset[int]
    """Units that are not to be run now."""
    may_have_checkpoint: bool
    is_committed: bool
    """It is complete on disk, and only its error rows are run again."""


@dataclass(frozen=True, slots=True)
class Orders:
    """How a worker is to work until its next report."""

    has_more: bool = False
    """More work waits: report as soon as the engine's queue runs low."""
    is_draining: bool = False
    """Admit nothing more, so that what the engine has comes to its end."""
    report_s: float = 1.0
    """Report after so long at the latest. It bounds how old the progress shown is, and how long a
    stop takes."""
    max_busy_s: float = math.inf
    """Report after so much device time: where that is paid for by the second, and simulated."""


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself once its engine is loaded."""

    node: str
    device_name: str
    device_uuid: str | None
    """None on a CPU; of several GPUs, joined by commas."""
    num_devices: int
    """Each of which costs its price."""
    max_seqs: int
    arena_bytes: int


@dataclass(frozen=True, slots=True)
class Tally:
    """Sums over rows; they add up with +. A sum of which a part is unknown is None."""

    rows: int = 0
    errors: int = 0
    skipped: int = 0
    """Samples that their question did not need."""
    evictions: int = 0
    graded: int = 0
    correct: int = 0
    completion_tokens: int = 0
    stored_tokens: int = 0
    """Peak stored tokens of each row."""
    full_tokens: int = 0
    """What would have been stored without eviction."""
    device_s: float = 0.0
    energy_j: float | None = 0.0
    cost_usd: float | None = 0.0

    @property
    def answers(self) -> int:
        return self.rows - self.errors - self.skipped

    def __add__(self, other: Tally) -> Tally:
        sums: dict[str, Any] = {}
        for name in (f.name for f in fields(self)):
            mine, theirs = getattr(self, name), getattr(other, name)
            sums[name] = None if mine is None or theirs is None else mine + theirs
        return Tally(**sums)


@dataclass(slots=True)
class Finished:
    """Rows that came to be, and shards that left the worker's hands."""

    units: list[int] = field(default_factory=list)
    committed: list[int] = field(default_factory=list)
    """Shards that are complete on disk."""
    saved: list[int] = field(default_factory=list)
    """Shards of which all that their lease could run is on disk:
    all but the held-back units and what waits for these."""
    tally: Tally = field(default_factory=Tally)

    def add(self, other: Finished) -> None:
        self.units += other.units
        self.committed += other.committed
        self.saved += other.saved
        self.tally += other.tally


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker did since its last report, and how much more it could take."""

    finished: Finished
    num_wanted: int
    """Rows that the engine could admit or queue; 0 while it has enough."""
    is_idle: bool
    """Nothing is left to do until the next assignment."""
    num_in_engine: int
    """Requests that it would lose if it ended now; num_running of them are decoded."""
    num_running: int
    max_seqs: int
    """Shrinks where memory ran out."""
    spent_usd: float | None
    """Price of the time that it has held its device, at work or not; None if unknown."""
    has_left: bool = False
    """It has stored all it had and wants to end: its machine is going away."""
    gauges: Mapping[str, float | None] = field(default_factory=dict)
    """The latest sample of its telemetry, see data/samples.py."""
    warnings: Mapping[str, str] = field(default_factory=dict)
    """Texts of warnings by kind: of each the first one, once."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A worker has a node, and begins to load."""

    worker_id: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A worker is ready for assignments."""

    worker_id: str
    info: WorkerInfo
    node_id: str
    """Of the cluster: several nodes may have the same host name."""


@dataclass(frozen=True, slots=True)
class Reported:
    """A worker's call came back."""

    worker_id: str
    report: Report


@dataclass(frozen=True, slots=True)
class Left:
    """A worker stored what it had and ended, as the driver or its machine asked it to."""

    worker_id: str
    report: Report


@dataclass(frozen=True, slots=True)
class Died:
    """A worker is gone, with all that it had not stored."""

    worker_id: str
    reason: str
    is_out_of_memory: bool = False
    """It was ended because its machine ran out of memory."""
    node_id: str | None = None
    """None where it never ran."""


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker ended with an error of ours, which any other one would meet as well.

    If it was not ready and others are, the error is its machine's.
    """

    worker_id: str
    error: DyntsError
    node_id: str | None = None
    """None where it never ran."""


Event = Placed | Loaded | Reported | Left | Died | Failed
