"""The progress of a run in a few lines, from its run directory alone."""

from __future__ import annotations

from dynts_batch.data.progress import Progress
from dynts_batch.report.units import duration


def render(path: str, progress: Progress) -> str:
    """`progress` of the run directory at `path`, for a terminal."""
    share = progress.finished_rows / progress.num_rows
    lines = [
        f"run         {path}",
        f"state       {_state(progress)}",
        f"rows done   {progress.finished_rows:,} of {progress.num_rows:,} ({share:.1%})",
        f"shards      {progress.finished_shards:,} of {progress.num_shards:,}",
        f"failed      {progress.failed_rows:,}",
    ]
    if progress.skipped_rows is not None:
        lines.append(f"not needed  {progress.skipped_rows:,} (sampling.stop_when)")
    if progress.retry_rows is not None:
        lines.append(f"to retry    {progress.retry_rows:,} (policy.retry_budget)")
    if progress.checkpointed_rows:
        lines.append(f"in progress {progress.checkpointed_rows:,} rows of unfinished shards")
    if not progress.sealed:
        rate, eta_s = progress.rows_per_s, progress.eta_s
        lines += [
            f"throughput  {'n/a' if rate is None else f'{rate * 3600:,.0f} rows/h'}",
            f"ETA         {'n/a' if eta_s is None else duration(eta_s)}",
        ]
    return "\n".join(lines)


def _state(progress: Progress) -> str:
    if progress.sealed:
        return "finished"
    if progress.idle_s is None:
        return "no row yet"
    return f"last wrote {duration(progress.idle_s)} ago"
