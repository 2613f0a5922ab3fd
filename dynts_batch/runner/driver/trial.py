"""The trial of the code: who gets the unit that is tried next. health.py says what a trial is."""

from __future__ import annotations

from collections.abc import Callable, Set

from dynts_batch.runner.driver.health import Health
from dynts_batch.runner.driver.ledger import Lease, Ledger


class Trial:
    """While it lasts, one worker at a time has work, and that is one unit."""

    def __init__(self, ledger: Ledger, health: Health, warn: Callable[[str], None]) -> None:
        self._ledger, self._health, self._warn = ledger, health, warn
        self._is_told = False
        self._worker_id: str | None = None
        """Who got the latest unit."""

    @property
    def is_on(self) -> bool:
        return self._health.is_on_trial

    def tell_once(self) -> None:
        """Tell the user once it has begun."""
        if self.is_on and not self._is_told:
            self._is_told = True
            self._warn(
                f"{self._health.num_deaths} workers died before any row was done: until one is,"
                " requests are tried one at a time, and rather on nodes where no worker has died"
            )

    def waits(self, nodes: Set[str]) -> bool:
        """Whether it waits for a worker: none has its unit, and there is no verdict yet.

        `nodes` are those that could hold a worker.
        """
        is_trying = self._worker_id is not None and self._ledger.held_by(self._worker_id)
        return not is_trying and not self._health.is_code(nodes)

    def take(self, worker_id: str, nodes: Set[str]) -> Lease | None:
        """Lease a unit to `worker_id` if it is the one to try it; once each was tried, a shard."""
        if self._ledger.held_by(worker_id) or not self.waits(nodes):
            return None
        self._worker_id = worker_id
        return self._ledger.take_one(worker_id) or self._ledger.take(worker_id)

    def is_of(self, worker_id: str) -> bool:
        """Whether a death of `worker_id` belongs to the trial:
        it has a drawn unit, or none at all."""
        return self._ledger.is_trying(worker_id) or not self._ledger.held_by(worker_id)
