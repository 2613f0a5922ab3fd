"""The nodes of the cluster, and which of them get no new workers for a while.

What the deaths on a node say is in health.py; here it is asked, acted upon and told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set

from dynts_batch.runner.driver.fleet import Fleet
from dynts_batch.runner.driver.health import Health

_FRESH_S = 1.0


class Nodes:
    """Of one start of a run. Nobody asks the cluster before the first death."""

    def __init__(self, fleet: Fleet, health: Health, warn: Callable[[str], None]) -> None:
        self._fleet, self._health, self._warn = fleet, health, warn
        self._names: Mapping[str, str] = {}
        self._looked_at_s = 0.0
        self._told: frozenset[str] = frozenset()
        self.bad: dict[str, str] = {}
        """What was wrong with nodes that were avoided, by their ids."""

    @property
    def ids(self) -> Set[str]:
        """Those that could hold a worker, as of the latest death or later."""
        return self._names.keys()

    def name_of(self, node_id: str) -> str:
        return self._names.get(node_id, "a lost node")

    def look(self, now_s: float) -> None:
        """Ask the cluster which there are."""
        self._names, self._looked_at_s = self._fleet.nodes(), now_s

    def refresh(self, now_s: float) -> None:
        """Ask again if the latest answer is old."""
        if now_s >= self._looked_at_s + _FRESH_S:
            self.look(now_s)

    def avoid_bad_ones(self, now_s: float, *, is_anybody_ready: bool) -> None:
        """Have the fleet start no workers where they die, and tell of each such node."""
        may_wait = self._health.may_wait(is_anybody_ready=is_anybody_ready)
        avoided = self._health.avoided(self.ids, now_s, may_wait=may_wait)
        bad = self._health.bad_nodes(self._names, avoided)
        for node in bad.keys() - self._told:
            self._warn(f"no more workers are started there for a while: {bad[node]}")
        self.bad |= bad
        self._told = frozenset(bad)
        self._fleet.avoid(avoided, may_wait=may_wait)
