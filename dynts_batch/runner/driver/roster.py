"""The workers of one start of a run: a record for each, from its order until it is gone.

The ledger, the health and the spending read the records; what follows from a death is in
departures.py. Times are those of the monotonic clock, in seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from dynts_batch.runner.messages import Report, WorkerInfo


@dataclass(slots=True)
class WorkerRecord:
    """All that the driver knows of one worker."""

    worker_id: str
    info: WorkerInfo | None = None
    """None while it loads."""
    node_id: str | None = None
    """Known once it is ready."""
    report: Report | None = None
    """The latest one."""
    idle_since_s: float | None = None
    """None while it has a call under way."""
    is_retired: bool = False
    """It was asked to end, because no work waited."""
    num_deaths_before: int = 0
    """How many workers had died by the time it was ready."""
    usd: float = 0.0
    """What it cost up to `usd_until_s`."""
    usd_until_s: float | None = None
    """None while it holds no device."""

    @property
    def is_ready(self) -> bool:
        return self.info is not None

    @property
    def is_idle(self) -> bool:
        return self.idle_since_s is not None

    @property
    def has_nothing_left(self) -> bool:
        """Whether it has finished all that it was given."""
        return self.report is None or self.report.is_idle

    @property
    def max_seqs(self) -> int:
        """Sequences that its arena holds; it is ready."""
        assert self.info is not None, self.worker_id
        return self.info.max_seqs if self.report is None else self.report.max_seqs

    @property
    def num_wanted(self) -> int:
        """Rows that it could take now; at first twice what its arena holds."""
        return 2 * self.max_seqs if self.report is None else self.report.num_wanted


class Roster(Mapping[str, WorkerRecord]):
    """The records by worker id, in the order in which the workers were started."""

    def __init__(self) -> None:
        self._records: dict[str, WorkerRecord] = {}

    def __getitem__(self, worker_id: str) -> WorkerRecord:
        return self._records[worker_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def add(self, worker_id: str) -> None:
        """It was started, and loads."""
        assert worker_id not in self._records, worker_id
        self._records[worker_id] = WorkerRecord(worker_id)

    def remove(self, worker_id: str) -> None:
        """It is gone."""
        del self._records[worker_id]

    @property
    def loading(self) -> list[WorkerRecord]:
        return [worker for worker in self._records.values() if not worker.is_ready]

    @property
    def ready(self) -> list[WorkerRecord]:
        """Those that are loaded, at work or not."""
        return [worker for worker in self._records.values() if worker.is_ready]

    @property
    def idle(self) -> list[WorkerRecord]:
        """Those that wait for work, who waits longest first."""
        idle = [worker for worker in self._records.values() if worker.is_idle]
        return sorted(idle, key=lambda worker: worker.idle_since_s or 0.0)

    @property
    def reports(self) -> list[Report]:
        """The latest of each that has reported."""
        return [worker.report for worker in self._records.values() if worker.report is not None]
