"""What the deaths of workers say about the code and the nodes. The ledger says what of requests.

**The code.** A run that has worked has left a good row. Until it has, a few deaths put its code on
trial. Then one worker at a time has work, and that is one unit: another unit each time, and one
that nobody was blamed for while there is such a unit. The verdict is "it is the code" if three
things hold. Four or more units killed their worker. Where there are several nodes, half of these
deaths were elsewhere than on the worst node. Nobody else is at work. So three bad requests never
end a run, nor do a bad node and a bad request together.

The first good row ends the trial for ever: what has worked under a fingerprint is not broken.
After it, a run ends only if far more workers die in a row, of work that nobody died of before,
and if no worker at work outlives them.

**A node** is bad once `max_attempts` workers in a row died on it; in a trial, once one did. It gets
no new worker for a while, longer each time. A good row from it clears it of all deaths but those
of workers that were not ready: the next one cannot load just because another one works. A worker
that gets ready there clears it of these. If no other worker is ready, or the code is on trial, a
bad node is only the last choice: nobody waits for room elsewhere.

Pure bookkeeping: who asks says what time it is and which nodes could hold a worker.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Set

_MOST_BAD_REQUESTS = 3
_AVOID_S = 300.0
_MOST_AVOID_S = 3600.0


class Health:
    """The deaths of a run's workers, as far as nothing that worked has made them harmless."""

    def __init__(self, *, max_attempts: int, num_workers: int, has_worked: bool) -> None:
        """`has_worked`: the run has a good row from an earlier start."""
        self._max_attempts = max_attempts
        self._has_worked = has_worked
        self._most_before_trial = max(2, num_workers // 2)
        self._num_trials = max(max_attempts, _MOST_BAD_REQUESTS) + 1
        # So many may die of a trial: those at work when it began, and those that were tried.
        num_of_trial = num_workers + self._most_before_trial + self._num_trials
        self._most_in_a_row = max(max_attempts * num_workers, num_of_trial)
        self.num_deaths = 0
        self._num_explained = 0
        self._failed_trials: Counter[str | None] = Counter()
        self._deaths_on: Counter[str] = Counter()
        self._failed_loads_on: Counter[str] = Counter()
        self._last_on: dict[str, tuple[float, str]] = {}
        self._last_reason = ""

    # ---- what happened -------------------------------------------------------------------------

    def add_worker(self, node: str) -> None:
        """One is ready, on `node`."""
        del self._failed_loads_on[node]

    def add_rows(self, node: str, *, is_good: bool) -> None:
        """A worker on `node` finished rows, at least one of them without an error if `is_good`."""
        self._num_explained = self.num_deaths
        if is_good:
            self._has_worked = True
            del self._deaths_on[node]

    def add_death(
        self, node: str | None, reason: str, *, was_ready: bool, is_trial: bool, now_s: float
    ) -> None:
        """A worker died; `node` is None if it never ran.

        `is_trial`: it had a unit that was not tried before, or none.
        """
        if self.is_on_trial and is_trial:
            self._failed_trials[node] += 1
        self.num_deaths += 1
        self._last_reason = reason
        if node is not None:
            (self._deaths_on if was_ready else self._failed_loads_on)[node] += 1
            self._last_on[node] = now_s, reason

    def explain(self) -> None:
        """Requests explain the latest death:
        one is found to kill, or all were at a death before."""
        self._num_explained = self.num_deaths

    @property
    def num_unexplained(self) -> int:
        """Deaths in a row that neither a finished row nor a request that kills has excused."""
        return self.num_deaths - self._num_explained

    # ---- the code ------------------------------------------------------------------------------

    @property
    def is_on_trial(self) -> bool:
        """Whether only one worker at a time may have work, and that one unit."""
        return not self._has_worked and self.num_deaths >= self._most_before_trial

    def is_code(self, nodes: Set[str]) -> bool:
        """Whether whatever a worker is given kills it; `nodes` are those that could hold one."""
        failed = self._failed_trials.total()
        num_elsewhere = failed - max(self._failed_trials.values(), default=0)
        is_everywhere = len(nodes) <= 1 or num_elsewhere >= self._num_trials // 2
        return self.is_on_trial and failed >= self._num_trials and is_everywhere

    def verdict(self, nodes: Set[str], at_work: Iterable[int]) -> str | None:
        """Why the next worker would die as the last ones did, if it would.

        `at_work`: of each worker that has units, how many had died by the time it was ready.
        """
        num_in_a_row = self.num_unexplained
        seen = [self.num_deaths - num_before for num_before in at_work]
        if self.is_code(nodes) and not seen:
            return (
                f"workers die whatever they are given: {self.num_deaths} died before any row was"
                f" done, {self._failed_trials.total()} of them with a single request or none,"
                f" another one each time. The last one died of: {self._last_reason}"
            )
        # Before the first row the trial decides, if it can. A worker at work that has seen half of
        # the others die proves that not all do.
        most = self._most_in_a_row * (1 if self._has_worked else 2)
        if num_in_a_row > max(most, 2 * max(seen, default=0)):
            return (
                f"{num_in_a_row} workers in a row died without finishing a row, the last one of:"
                f" {self._last_reason}"
            )
        return None

    # ---- the nodes -----------------------------------------------------------------------------

    def may_wait(self, *, is_anybody_ready: bool) -> bool:
        """Whether a new worker may wait for room on a node that is not avoided."""
        return self._has_worked and is_anybody_ready

    def avoided(self, nodes: Set[str], now_s: float, *, may_wait: bool) -> frozenset[str]:
        """Those of `nodes` that shall get no new worker now; all of them only if it `may_wait`."""
        most = 1 if self.is_on_trial else self._max_attempts
        bad = {node for node in nodes if self._is_bad(node, most, now_s)}
        if bad == nodes and not may_wait:
            fewest = min((self._num_on(node) for node in bad), default=0)
            bad = {node for node in bad if self._num_on(node) > fewest}
        return frozenset(bad)

    def bad_nodes(self, nodes: Mapping[str, str], avoided: Set[str]) -> dict[str, str]:
        """What is wrong with the `avoided` ones of `nodes` (ids and names), if others work."""
        if not self._has_worked:
            return {}
        return {
            node: f"{self._num_on(node)} workers in a row died on node {nodes[node]}, the last one"
            f" of: {self._last_on[node][1]}"
            for node in avoided
        }

    def _is_bad(self, node: str, most: int, now_s: float) -> bool:
        num_more = self._num_on(node) - most
        if num_more < 0:
            return False
        for_s = min(_MOST_AVOID_S, _AVOID_S * 2 ** min(num_more, 10))
        return now_s < self._last_on[node][0] + for_s

    def _num_on(self, node: str) -> int:
        return self._deaths_on[node] + self._failed_loads_on[node]
