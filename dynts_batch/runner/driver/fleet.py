"""What the driver asks of the place where workers live: in a run that is a Ray cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from dynts_batch.runner.messages import Assignment, Event, Orders


class Fleet(Protocol):
    """Workers, each with one call under way at most."""

    def start(self, *, max_seqs: int | None = None) -> str:
        """Begin to load one more worker, and say its id; `wait` tells when it is ready.

        `max_seqs`: see Worker.
        """

    def nodes(self) -> Mapping[str, str]:
        """The nodes that could hold a worker, full or not: their ids and their names."""

    def avoid(self, nodes: frozenset[str], *, may_wait: bool) -> None:
        """Place no worker on `nodes` any more, and place workers on all others again.

        That holds for those that have no place yet, too. Unless it `may_wait`, a worker for which
        no other node has room is placed there all the same.
        """

    def send(self, worker_id: str, assignments: Sequence[Assignment], orders: Orders) -> None:
        """Let a worker work until its next report; see Worker.work."""

    def retire(self, worker_id: str) -> None:
        """Ask a worker without a call to store what it has and end: `wait` tells."""

    def cancel_loading(self) -> None:
        """Forget the workers that are not ready yet."""

    def wait(self, timeout_s: float) -> list[Event]:
        """What happened; none after `timeout_s`."""

    def close(self) -> None:
        """Ask all workers to store what they have and end: `wait` tells of each."""
