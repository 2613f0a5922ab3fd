"""A frontier in the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.console import Group, JustifyMethod
from rich.table import Table
from rich.text import Text

from dynts_batch.report.frontier.points import ROUNDING, TOLERANCE, Frontier, Point
from dynts_batch.report.units import MUCH_LESS


def table(frontier: Frontier) -> Group:
    """Every point with its paired 95% intervals in percentage points, and a conclusion per policy.

    For a terminal of 80 columns.
    """
    points, policies = _points_table(frontier), _policies_table(frontier)
    return Group(_title(frontier), "", points, "", policies, *_doubts(frontier))


def _title(frontier: Frontier) -> str:
    full = frontier.full
    if full is None:
        return "no run with policy full yet"
    low, high = full.interval
    return (
        f"full cache: {full.accuracy:.1%} right [{100 * low:.1f} {100 * high:.1f}],"
        f" {full.stored_tokens:,.0f} stored tokens, {full.generated_tokens:,.0f} generated,"
        f" {len(full.right):,} questions"
    )


def _points_table(frontier: Frontier) -> Table:
    """Points by budget, the best first.

    Right answers are in percent, KV memory in percent of the full cache's, and the cost of a right
    answer is over the full cache's. The 95% intervals of the paired differences are in percentage
    points. "minus best other" makes a policy first, tied with the first, or behind.
    """
    full = frontier.full
    shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("budget, policy", overflow="fold", vertical="bottom")
    for name in (
        "right",
        "KV %",
        "tokens",
        "cost\n/full",
        "minus full",
        "minus best\nother",
        "",
    ):
        justify: JustifyMethod = "right" if name else "left"
        shown.add_column(name, justify=justify, vertical="bottom", no_wrap=True)
    for budget in frontier.budgets:
        shown.add_section()
        shown.add_row(_heading(frontier, budget), style="bold")
        points = [point for point in frontier.points if point.budget == budget]
        for point in sorted(points, key=lambda p: -p.accuracy):
            shown.add_row(
                Text(f"  {point.policy}"),
                f"{100 * point.accuracy:.1f}",
                "" if full is None else f"{100 * point.stored_bytes / full.stored_bytes:.1f}",
                f"{point.generated_tokens:,.0f}",
                _cost(point, full),
                _difference(point, full),
                _difference(point, frontier.rival(point)),
                frontier.standing(point),
            )
    return shown


def _policies_table(frontier: Frontier) -> Table:
    shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("policy", overflow="fold")
    shown.add_column(
        "smallest budget\nwithin 2 points of full,\nby point estimate", justify="right"
    )
    shown.add_column("within 2\npoints at")
    shown.add_column("first or\ntied at")
    for policy in frontier.policies:
        within = frontier.budgets_within_tolerance(policy)
        shown.add_row(
            Text(policy), str(within[0]) if within else "none", _list(within),
            _list(frontier.budgets_in_front(policy)),
        )  # fmt: skip
    return shown


def _doubts(frontier: Frontier) -> list[str]:
    """A line if the questions leave it open for every budget whether it is within tolerance."""
    full = frontier.full
    within = [
        point
        for policy in frontier.policies
        for budget in frontier.budgets_within_tolerance(policy)
        if (point := frontier.at(policy, budget)) is not None
    ]
    if full is None or not within or any(_is_surely_within(point, full) for point in within):
        return []
    num, points = len(full.right), f"{100 * TOLERANCE:g} points"
    return ["", f"{num:,} questions cannot show {points}: every interval reaches further down."]


def _is_surely_within(point: Point, full: Point) -> bool:
    low = point.minus(full).low
    return low is not None and low >= -TOLERANCE - ROUNDING


def _list(budgets: list[int]) -> str:
    return ", ".join(map(str, budgets)) or "none"


def _heading(frontier: Frontier, budget: int) -> str:
    if frontier.full is None:
        return str(budget)
    return f"{budget} ({budget / frontier.full.stored_tokens:.0%} of full)"


def _cost(point: Point, full: Point | None) -> str:
    if full is None or point.usd_per_right is None or not full.usd_per_right:
        return ""
    ratio = point.usd_per_right / full.usd_per_right
    return f"{ratio:.2f}" if ratio >= MUCH_LESS else f"{ratio:.2g}"


def _difference(point: Point, other: Point | None) -> str:
    """The interval, in percentage points, or the bare difference if there is none."""
    if other is None:
        return ""
    found = point.minus(other)
    if found.low is None or found.high is None:
        return f"{100 * found.mean:+.1f}"
    return f"{100 * found.low:+.1f}..{100 * found.high:+.1f}"
