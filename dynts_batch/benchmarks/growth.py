"""Step time against position: flat for a bounded cache, growing for an unbounded one."""

from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dynts_batch.benchmarks.contenders.contenders import load_requests, make_engine
from dynts_batch.benchmarks.measure import Row
from dynts_batch.benchmarks.stopwatch import now
from dynts_batch.benchmarks.workload import Load, Workload
from dynts_batch.engine.engine import Engine
from dynts_batch.errors import ConfigError

#: Fewest decode steps that are averaged.
MIN_SPAN = 256


def growth(name: str, workload: Workload) -> list[Row]:
    """Mean time of a step in spans of positions, of one of our policies or `hf-generate`.

    A span is a whole number of eviction cycles, so all spans hold the same mix of cache lengths.
    """
    load = workload.load()
    if load.batch_size < len(load.prompts):
        raise ConfigError(f"growth runs one batch, got num_requests {len(load.prompts)}")
    if name == "hf-generate":
        times = _generate_times(workload, load)
    else:
        times = step_times(make_engine(workload, name, load), load)
    cycle = workload.budget - workload.retained_len
    span = cycle * -(-MIN_SPAN // cycle)
    rows = []
    # The rest at the end is no whole span.
    for start in range(0, len(times) - span, span):
        step = (times[start + span] - times[start]) / span
        rows.append(
            {"contender": name, "position": workload.prompt_tokens + start + span, "step_s": step}
        )
    return rows


def step_times(engine: Engine, load: Load) -> list[float]:
    """The time at which each step of a load ended."""
    for request in load_requests(load):
        engine.add_request(request)
    times = []
    while engine.has_work():
        engine.step()
        times.append(now())
    return times


def _generate_times(workload: Workload, load: Load) -> list[float]:
    times: list[float] = []

    def record(token_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
        times.append(now())
        return torch.zeros(len(token_ids), dtype=torch.bool, device=token_ids.device)

    model = workload.make_model()
    token_ids = torch.tensor(load.prompts, device=model.device)
    model.generate(
        token_ids,
        attention_mask=torch.ones_like(token_ids),
        max_new_tokens=workload.max_new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        stopping_criteria=[record],
    )
    return times


def print_growth(rows: list[Row], budget: int, console: Console) -> None:
    """Print each span's step, and its ratio to the same contender's step at twice the budget."""
    table = Table(
        title=f"mean step up to a position, and its ratio to the step at 2 x budget ({2 * budget})"
    )
    for title in ("contender", "position", "step ms", "ratio"):
        table.add_column(title, justify="left" if title == "contender" else "right")
    for name in dict.fromkeys(row["contender"] for row in rows):
        own = [row for row in rows if row["contender"] == name]
        reference = next((row for row in own if row["position"] >= 2 * budget), own[-1])["step_s"]
        for row in own:
            cells = (f"{row['step_s'] * 1e3:.2f}", f"{row['step_s'] / reference:.2f}")
            table.add_row(name, str(row["position"]), *cells)
    console.print(table)
