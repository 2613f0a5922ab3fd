"""Where our engine's decode time goes, by timers around its own functions.

The parts are disjoint: a part's time excludes that of the parts within it. A GPU must finish at
every timer, so on a GPU the sum is longer than an undisturbed run.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from dynts_batch.benchmarks.contenders.contenders import load_requests, make_engine
from dynts_batch.benchmarks.measure import Row
from dynts_batch.benchmarks.stopwatch import now
from dynts_batch.benchmarks.workload import Workload
from dynts_batch.engine import eviction as eviction_module
from dynts_batch.engine import model_runner as runner_module
from dynts_batch.engine.attention.steps import DecodeStep
from dynts_batch.engine.engine import Engine
from dynts_batch.engine.recording import Recording
from dynts_batch.kvcache.arena import KVArena

#: All that no timer covers: tensors made from Python's numbers, sequences, lanes, completions.
REST = "bookkeeping"


class Timers:
    """Adds up the time within each named part."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._parts = [REST]
        self._since = now()

    def switch(self, part: str | None) -> None:
        """Charge the time since the last switch, then enter `part`, or leave the current one."""
        time = now()
        self.seconds[self._parts[-1]] += time - self._since
        if part is None:
            self._parts.pop()
        else:
            self._parts.append(part)
        self._since = now()

    def around(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            self.switch(part)
            try:
                return function(*args, **kwargs)
            finally:
                self.switch(None)

        return timed


@contextmanager
def timing(engine: Engine) -> Iterator[Timers]:
    timers, runner = Timers(), engine._runner
    places: list[tuple[str, Any, str]] = [
        ("forward", runner.model.decoder, "forward"),
        ("forward", runner.model.head, "forward"),
        ("attention", DecodeStep, "attend"),
        ("recording", Recording, "end"),
        ("recording", Recording, "step_done"),
        ("recording", Recording, "settle"),
        ("sample", runner_module, "sample"),
        ("select", type(engine._evictor._policy), "stays"),
        ("select", eviction_module, "ascending"),
        ("evict", KVArena, "evict"),
    ]
    with ExitStack() as patches:
        for part, owner, name in places:
            patches.enter_context(
                patch.object(owner, name, timers.around(part, getattr(owner, name)))
            )
        yield timers


def breakdown(policy_name: str, workload: Workload) -> list[Row]:
    """Seconds and share of each part, over all steps except the first, which holds the prefill."""
    load = workload.load()
    engine = make_engine(workload, policy_name, load)
    # The parts of a repeated CUDA graph cannot be told apart. So the unrecorded step is timed.
    engine._runner.graphs = None
    for request in load_requests(load):
        engine.add_request(request)
    engine.step()
    num_steps = 0
    with timing(engine) as timers:
        while engine.has_work():
            engine.step()
            num_steps += 1
        timers.switch(None)
    total = sum(timers.seconds.values())
    return [
        {
            "contender": policy_name,
            "part": part,
            "step_s": seconds / num_steps,
            "share": seconds / total,
        }
        for part, seconds in sorted(timers.seconds.items(), key=lambda item: -item[1])
    ]


def print_breakdown(rows: list[Row], console: Console) -> None:
    table = Table(title="where a decode step's time goes")
    for title in ("contender", "part", "ms", "share"):
        table.add_column(title, justify="right" if title in ("ms", "share") else "left")
    for row in rows:
        table.add_row(
            row["contender"], row["part"], f"{row['step_s'] * 1e3:.3f}", f"{row['share']:.1%}"
        )
    console.print(table)
