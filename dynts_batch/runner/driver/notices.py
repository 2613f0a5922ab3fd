"""What the user must see of the workers' reports: warnings of a new kind, and arenas that shrank."""

from __future__ import annotations

from collections.abc import Callable

from dynts_batch.runner.messages import Report


class Notices:
    """Each kind of warning is told once in a run; what workers log stays in the log files of their machines."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._known: set[str] = set()
        self._max_seqs: dict[str, int] = {}

    def loaded(self, worker_id: str, max_seqs: int) -> None:
        self._max_seqs[worker_id] = max_seqs

    def reported(self, worker_id: str, report: Report) -> None:
        for kind, text in report.warnings.items():
            if kind not in self._known:
                self._known.add(kind)
                self._warn(f"worker {worker_id} warns: {text}")
        before, self._max_seqs[worker_id] = self._max_seqs[worker_id], report.max_seqs
        if report.max_seqs < before:
            self._warn(
                f"worker {worker_id} ran out of memory and goes on with {report.max_seqs} sequences"
                f" at once instead of {before}; those in flight begin anew"
            )
