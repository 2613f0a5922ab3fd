"""How far a run is, in a few lines, from its run directory alone."""

from __future__ import annotations

from dynts_batch.data.progress import Progress


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
    if progress.checkpointed_rows:
        lines.append(f"in progress {progress.checkpointed_rows:,} rows of unfinished shards")
    if not progress.sealed:
        rate = progress.rows_per_s
        lines += [
            f"throughput  {'n/a' if rate is None else f'{rate * 3600:,.0f} rows/h'}",
            f"ETA         {_duration(progress.eta_s)}",
        ]
    return "\n".join(lines)


def _state(progress: Progress) -> str:
    if progress.sealed:
        return "finished"
    if progress.idle_s is None:
        return "no row yet"
    return f"last wrote {_duration(progress.idle_s)} ago"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "n/a"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
