"""What a run has shown, in a sentence: did evicting buy concurrency, or what did the full cache
cost?"""

from __future__ import annotations

from dynts_batch.report.crossover import Crossover
from dynts_batch.report.lines import NO_SAMPLE
from dynts_batch.report.totals import Totals
from dynts_batch.report.units import counted, size


def verdict(totals: Totals) -> str:
    """Which side of the crossover the run was on, in a sentence."""
    crossover = totals.crossover
    if totals.config.policy.name == "full":
        return (
            "This run kept the full cache: it is what eviction is measured against."
            f"{_preempted(totals)}"
        )
    if crossover is None:
        return f"Which side of the crossover this run was on is unknown: {_why_unknown(totals)}."
    together = f"{crossover.running:,} sequences ran together in {size(crossover.arena_bytes)}"
    full = f"a full cache in the same bytes would have held {_full_cache(crossover)}"
    if crossover.is_ahead:
        return f"Eviction bought concurrency: {together}; {full}."
    if totals.num_answers <= crossover.paged:
        rows = counted(totals.num_answers, "row")
        return f"Too few rows to tell whether eviction buys concurrency: {rows}, and {full}."
    return (
        f"Eviction bought no concurrency: {together}; {full}."
        " With memory to spare, the full cache is the better choice."
    )


def _preempted(totals: Totals) -> str:
    """What became of sequences that were admitted without room for all of their tokens."""
    if not totals.num_preemptions:
        return ""
    again = totals.recomputed_tokens
    tokens = "an unknown number of tokens" if again is None else f"{again:,} tokens"
    return (
        f" It ran out of blocks: {totals.num_preemptions:,} times a sequence lost its cache,"
        f" and {tokens} were computed again."
    )


def _full_cache(crossover: Crossover) -> str:
    return (
        f"{crossover.paged:,} at most, or {crossover.reserved:,} with room reserved for the longest"
    )


def _why_unknown(totals: Totals) -> str:
    if totals.device is None:
        return "it has no telemetry"
    return NO_SAMPLE if totals.device.peak_running == 0 else "it answered nothing"
