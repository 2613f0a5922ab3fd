"""The driver's ledger: which shards wait, which are leased to a worker, which are done.

Pure bookkeeping over unit numbers (see shard_plan.py): knows nothing about Ray, rows or files.

    pending --take--> leased --record(committed)--> done
       ^                |
       |                +--record(saved)---> pending, without the units that are saved
       +----release-----+                    (the worker is gone)

**Suspects.** A unit that was in flight at `max_attempts - 1` worker deaths is a suspect: its last
attempt is alone in a worker, after all other work. So the request that kills is quarantined, and
those that merely stood beside it are not. Once it is found, the other suspects are cleared of one
death each.

**Nodes.** A machine may kill whatever it is given. So if there are several, a unit is quarantined
only once it died alone on two of them. If no worker comes to be on another node, it takes more than
twice `max_attempts` deaths on one. A suspect is kept for workers on nodes where it has not died
alone, as long as there are such workers.

**Turns.** Samples of a row may wait for each other (ShardPlan.in_turn). Then those after a suspect
wait with it. A single unit is leased only once all before it are on disk.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass

from dynts_batch.runner.driver.roster import WorkerRecord
from dynts_batch.runner.shard_plan import ShardPlan


@dataclass(frozen=True, slots=True)
class Lease:
    """A shard in the hands of one worker."""

    shard: int
    worker_id: str
    attempt: int
    """1 + the times a worker died holding this shard."""
    held_back: frozenset[int]
    """Units of the shard that this lease must not run:
    suspects that get a lease of their own, and what waits for them."""
    is_alone: bool
    """The worker gets nothing else until this lease ends."""
    is_trial: bool = False
    """It is of one unit that was drawn, see Ledger.take_one."""


class Ledger:
    """Every unit is in exactly one place; `release` and `record` move them, nothing else does."""

    def __init__(
        self,
        plan: ShardPlan,
        shards: Iterable[int],
        *,
        max_attempts: int,
        workers: Mapping[str, WorkerRecord],
    ) -> None:
        """`shards` are those to work on; all others count as done.

        `workers` are those that may hold one: their records say on which nodes they are.
        """
        self._plan, self._workers = plan, workers
        self._max_attempts = max_attempts
        self._pending = deque(sorted(shards))
        self._only_suspects: deque[int] = deque()
        self._leases: dict[int, Lease] = {}
        self._attempts: Counter[int] = Counter()
        self._deaths: Counter[int] = Counter()
        self._died_alone_on: dict[int, list[str]] = {}
        self._tried: set[int] = set()
        self._finished: dict[int, set[int]] = {}
        self._saved: dict[int, set[int]] = {}
        self._quarantined: dict[int, str] = {}
        self._num_open_units = sum(len(plan.units(shard)) for shard in self._pending)

    @property
    def is_complete(self) -> bool:
        """Whether no shard is pending or leased."""
        return not (self._pending or self._only_suspects or self._leases)

    @property
    def num_pending(self) -> int:
        """Shards that wait for a worker."""
        return len(self._pending) + len(self._only_suspects)

    @property
    def num_done(self) -> int:
        """Units that have a row: in done shards, saved, or reported in a lease."""
        known = {**self._saved, **self._finished}
        return self._plan.num_units - self._num_open_units + sum(map(len, known.values()))

    @property
    def quarantined(self) -> Mapping[int, str]:
        """Units that are not run any more, with the reason their last worker died of."""
        return self._quarantined

    def held_by(self, worker_id: str) -> list[int]:
        """Shards leased to `worker_id`."""
        return [lease.shard for lease in self._leases_of(worker_id)]

    def is_trying(self, worker_id: str) -> bool:
        """Whether `worker_id` holds what `take_one` gave it."""
        return any(lease.is_trial for lease in self._leases_of(worker_id))

    def has_only_blamed(self, worker_id: str) -> bool:
        """Whether `worker_id` has units in flight that were all at an earlier death,
        and none drawn."""
        leases = self._leases_of(worker_id)
        units = {unit for lease in leases for unit in self._in_flight(lease)}
        is_drawn = any(lease.is_trial for lease in leases)
        return bool(units) and not is_drawn and all(self._deaths[unit] for unit in units)

    def has_work_for(self, worker_id: str) -> bool:
        """Whether `take` would give `worker_id` a shard."""
        held = self._leases_of(worker_id)
        if any(lease.is_alone for lease in held):
            return False
        return bool(self._pending) or (not held and self._next_suspect(worker_id) is not None)

    def take(self, worker_id: str) -> Lease | None:
        """Lease a shard to `worker_id`; None if there is nothing that it may have now."""
        if not self.has_work_for(worker_id):
            return None
        if self._pending:
            shard = self._pending.popleft()
            return self._lease(shard, worker_id, self._held_back(shard), is_alone=False)
        unit = self._next_suspect(worker_id)
        assert unit is not None
        return self._lease_alone(unit, worker_id)

    def take_one(self, worker_id: str) -> Lease | None:
        """Lease to `worker_id`, which holds nothing, a single unit of those that were blamed least.

        It is drawn at random from what waits, another one each time; None once each was tried.
        """
        assert not self.held_by(worker_id), worker_id
        dice = random.Random(len(self._tried))
        waiting = [*self._pending, *self._only_suspects]
        least: int | None = None
        for shard in dice.sample(waiting, len(waiting)):
            left = self._open_units(shard) - self._tried - self._quarantined.keys()
            untried = sorted(unit for unit in left if not self._waits(unit))
            for unit in dice.sample(untried, len(untried)):
                if least is None or self._deaths[unit] < self._deaths[least]:
                    least = unit
            if least is not None and not self._deaths[least]:
                break
        if least is None:
            return None
        self._tried.add(least)
        return self._lease_alone(least, worker_id, is_trial=True)

    def record(
        self,
        worker_id: str,
        finished: Iterable[int],
        committed: Iterable[int],
        saved: Iterable[int],
    ) -> None:
        """What `worker_id` reports: units that have a row, and shards whose lease ended.

        `committed` shards are complete on disk; of `saved` ones all units that have a row are.
        """
        for unit in finished:
            shard = unit // self._plan.shard_rows
            assert self._leases[shard].worker_id == worker_id, (unit, worker_id)
            self._finished[shard].add(unit)
            self._forget(unit)  # whoever kills, it is not this one
        for shard in committed:
            self._end_lease(shard, worker_id)
            self._saved.pop(shard, None)
            self._num_open_units -= len(self._plan.units(shard))
        for shard in saved:
            self._saved[shard] = self._finished[shard]
            self._end_lease(shard, worker_id)
            self._enqueue(shard)

    def release(self, worker_id: str, reason: str | None, nodes: Set[str] = frozenset()) -> None:
        """Take back all that a worker held.

        `reason` says what it died of: that counts against every unit that was in flight. None says
        that it left, having stored the rows it had. `nodes` are those that could hold a worker now.
        """
        node = self._workers[worker_id].node_id
        for lease in self._leases_of(worker_id):
            finished, in_flight = self._finished[lease.shard], self._in_flight(lease)
            self._end_lease(lease.shard, worker_id)
            if reason is None:
                self._saved[lease.shard] = finished
            else:
                self._attempts[lease.shard] += 1
                if lease.is_alone and node is not None:
                    for unit in in_flight:
                        self._died_alone_on.setdefault(unit, []).append(node)
                self._blame(in_flight, reason, nodes, is_alone=lease.is_alone)
            self._enqueue(lease.shard)

    def _leases_of(self, worker_id: str) -> list[Lease]:
        return [lease for lease in self._leases.values() if lease.worker_id == worker_id]

    def _in_flight(self, lease: Lease) -> set[int]:
        open_units = self._open_units(lease.shard) - self._finished[lease.shard]
        return open_units - lease.held_back - self._quarantined.keys()

    def _lease_alone(self, unit: int, worker_id: str, *, is_trial: bool = False) -> Lease:
        shard = unit // self._plan.shard_rows
        (self._pending if shard in self._pending else self._only_suspects).remove(shard)
        held_back = frozenset(self._open_units(shard) - {unit})
        return self._lease(shard, worker_id, held_back, is_alone=True, is_trial=is_trial)

    def _lease(
        self,
        shard: int,
        worker_id: str,
        held_back: frozenset[int],
        *,
        is_alone: bool,
        is_trial: bool = False,
    ) -> Lease:
        attempt = 1 + self._attempts[shard]
        lease = Lease(shard, worker_id, attempt, held_back, is_alone, is_trial)
        self._leases[shard] = lease
        self._finished[shard] = set(self._saved.get(shard, ()))
        return lease

    def _end_lease(self, shard: int, worker_id: str) -> Lease:
        lease = self._leases.pop(shard)
        assert lease.worker_id == worker_id, (shard, worker_id, lease)
        del self._finished[shard]
        return lease

    def _blame(self, units: set[int], reason: str, nodes: Set[str], *, is_alone: bool) -> None:
        convicted = []
        for unit in sorted(units):
            self._deaths[unit] += 1
            if self._is_convicted(unit, nodes):
                self._quarantined[unit] = reason
                self._forget(unit)
                convicted.append(unit)
        if is_alone and convicted:
            self._clear_suspects()

    def _is_convicted(self, unit: int, nodes: Set[str]) -> bool:
        if self._deaths[unit] < self._max_attempts:
            return False
        alone_on = self._died_alone_on.get(unit, [])
        has_been_elsewhere = len(set(alone_on)) > 1 or nodes <= set(alone_on)
        return len(nodes) <= 1 or has_been_elsewhere or len(alone_on) > 2 * self._max_attempts

    def _forget(self, unit: int) -> None:
        del self._deaths[unit]
        self._died_alone_on.pop(unit, None)

    def _clear_suspects(self) -> None:
        for unit in [u for u in self._deaths if self._is_suspect(u)]:
            self._deaths[unit] -= 1
        waiting, self._only_suspects = self._only_suspects, deque()
        for shard in waiting:
            self._enqueue(shard)

    def _enqueue(self, shard: int) -> None:
        """At the end of its queue: what has failed waits until the rest is done."""
        is_clear = self._open_units(shard) - self._held_back(shard)
        (self._pending if is_clear else self._only_suspects).append(shard)

    def _open_units(self, shard: int) -> set[int]:
        """Units that are not on disk."""
        return set(self._plan.units(shard)) - self._saved.get(shard, set())

    def _waits(self, unit: int) -> bool:
        """Whether a sample that `unit` may have to wait for is not on disk."""
        saved = self._saved.get(unit // self._plan.shard_rows, ())
        return any(earlier not in saved for earlier in self._plan.earlier_samples(unit))

    def _next_suspect(self, worker_id: str) -> int | None:
        """The first suspect that waits for nobody but suspects, and that `worker_id` may have."""
        units = (unit for shard in self._only_suspects for unit in self._suspects(shard))
        may_run = (unit for unit in units if not self._waits(unit))
        return next((unit for unit in may_run if self._may_have(worker_id, unit)), None)

    def _may_have(self, worker_id: str, unit: int) -> bool:
        died_on = set(self._died_alone_on.get(unit, []))
        nodes = {worker.node_id for worker in self._workers.values() if worker.is_ready}
        return self._workers[worker_id].node_id not in died_on or nodes <= died_on

    def _held_back(self, shard: int) -> frozenset[int]:
        suspects = self._suspects(shard)
        later = [unit for suspect in suspects for unit in self._plan.later_samples(suspect)]
        return frozenset(suspects + later)

    def _suspects(self, shard: int) -> list[int]:
        return [unit for unit in self._plan.units(shard) if self._is_suspect(unit)]

    def _is_suspect(self, unit: int) -> bool:
        return self._deaths[unit] >= max(1, self._max_attempts - 1)
