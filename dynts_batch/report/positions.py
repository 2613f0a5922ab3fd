"""Rows that went beyond the positions that their model was trained for: nothing stops them there, and nothing says that they are
as good."""

from __future__ import annotations

import pyarrow.compute as pc

from dynts_batch.data.run_dir import RunDir

_COLUMNS = ("prompt_tokens", "completion_tokens")


def beyond_text(run_dir: RunDir) -> str | None:
    """How many of the committed rows did; None where none did, or the model does not say for how many it was trained.

    Raises: RunDirError where the rows cannot be read.
    """
    model = run_dir.fingerprint().get("model")
    trained = model.get("trained_positions") if isinstance(model, dict) else None
    if trained is None:
        return None
    num_rows = num_beyond = 0
    for rows in run_dir.read_rows(_COLUMNS):
        lengths = pc.add(rows["prompt_tokens"], rows["completion_tokens"])
        num_rows += rows.num_rows
        num_beyond += pc.sum(pc.greater(lengths, trained)).as_py() or 0
    if not num_beyond:
        return None
    return (
        f"{num_beyond:,} of {num_rows:,} rows went beyond the {trained:,} positions that the model was trained for"
        " (max_position_embeddings): what it wrote there may be worse"
    )
