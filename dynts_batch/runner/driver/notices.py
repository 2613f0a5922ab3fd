"""What the user must see of the workers' reports: new kinds of warnings, and shrunken arenas."""

from __future__ import annotations

from collections.abc import Callable

from dynts_batch.runner.driver.roster import WorkerRecord
from dynts_batch.runner.messages import Report


class Notices:
    """Each kind of warning is told once in a run.

    What workers log stays in the log files of their machines.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self.told: dict[str, str] = {}
        """The workers' warnings: the first text of each kind."""

    def reported(self, worker: WorkerRecord, report: Report) -> None:
        """Tell what is new in `report`, which is not in the record of `worker` yet."""
        for kind, text in report.warnings.items():
            if kind not in self.told:
                self.told[kind] = text
                self._warn(f"worker {worker.worker_id} warns: {text}")
        if report.max_seqs < worker.max_seqs:
            self._warn(
                f"worker {worker.worker_id} ran out of memory and goes on with {report.max_seqs}"
                f" sequences at once instead of {worker.max_seqs}; those in flight begin anew"
            )
