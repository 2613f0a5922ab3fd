"""A frontier as a picture: accuracy against KV memory."""

from __future__ import annotations

from collections.abc import Sequence

from dynts_batch.report.charts.line_chart import MAX_INTERVALS, Level, Series, line_chart
from dynts_batch.report.frontier.points import Frontier, Point


def picture(frontier: Frontier) -> str:
    """SVG: accuracy against KV memory, one line per policy, and the full cache as a level.

    A bar is the paired interval of the difference to the full cache: the whole of it is below the
    level if the policy loses for sure. Without the full cache, bars are the accuracy's own
    intervals, and memory is in bytes.
    """
    full = frontier.full
    names, common = _without_common_options(frontier.policies)
    return line_chart(
        [_line(frontier, *both) for both in zip(frontier.policies, names, strict=True)],
        title="Right answers by KV memory",
        note=_note(frontier, common),
        x_label="peak KV memory of a sequence, "
        + ("bytes" if full is None else "% of the full cache's"),
        level=None if full is None else Level(f"full: {full.accuracy:.1%}", full.accuracy),
        is_log_x=True,
        is_share=True,
    )


def _line(frontier: Frontier, policy: str, name: str) -> Series:
    points = [point for b in frontier.budgets if (point := frontier.at(policy, b)) is not None]
    full = frontier.full
    unit = full.stored_bytes / 100 if full is not None else 1.0
    # A budget at which each row failed stored nothing, and has no place on a logarithmic axis.
    points = [point for point in points if point.stored_bytes > 0]
    return Series(
        name,
        tuple((point.stored_bytes / unit, point.accuracy) for point in points),
        tuple(point.interval if full is None else _beside(full, point) for point in points),
    )


def _note(frontier: Frontier, common: str) -> str:
    counts = {len(point.right) for point in frontier.points}
    notes = [f"{max(counts):,} questions"]
    if len(frontier.policies) <= MAX_INTERVALS:
        what = " of the paired difference to the full cache" if frontier.full is not None else ""
        notes.append(f"bars: 95% intervals{what}")
    if common:
        notes.append(f"all policies with {common}")
    return "; ".join(notes)


def _beside(full: Point, point: Point) -> tuple[float, float]:
    """The paired interval of the difference to `full`, as accuracies of `point`."""
    found = point.minus(full)
    if found.low is None or found.high is None:
        return point.accuracy, point.accuracy
    low, high = (point.accuracy + end - found.mean for end in (found.low, found.high))
    return max(0.0, low), min(1.0, high)


def _without_common_options(policies: Sequence[str]) -> tuple[list[str], str]:
    """The policies' names without the options that all of them have, and those."""
    names = [policy.split("+") for policy in policies]
    common = [
        option
        for option in dict.fromkeys(part for _, *options in names for part in options)
        if len(names) > 1 and all(option in options for _, *options in names)
    ]
    shown = ["+".join([name, *(o for o in options if o not in common)]) for name, *options in names]
    return shown, ", ".join(common)
