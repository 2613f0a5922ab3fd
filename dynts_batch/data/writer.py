"""Makes Arrow tables of completions. A row is a source row, a completion and the worker's figures.

Owns the mapping to the fields of schema.py. Knows nothing about files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from dynts_batch.data.readers.source import SourceRow
from dynts_batch.data.schema import OWN_FIELDS, SOURCE_COLUMN
from dynts_batch.records import Completion

#: The mean log-probability of so many tokens in a row tells how sure the model was there.
GROUP_TOKENS = 2048


def output_row(
    schema: pa.Schema, source: SourceRow, completion: Completion, extras: Mapping[str, Any]
) -> dict[str, Any]:
    """One row of `schema` (from `row_schema`) as a dict, without the source's columns.

    `extras` holds what neither the source nor the engine knows: extracted_answer, correct,
    energy_j, cost_usd, worker_id, node, device_*, attempt. A missing value is null.
    """
    assert source.request_id == completion.request_id, (source.request_id, completion.request_id)
    assert extras.keys() <= OWN_FIELDS.keys(), extras.keys() - OWN_FIELDS.keys()
    row: dict[str, Any] = {}
    for field in schema:
        if SOURCE_COLUMN in (field.metadata or {}):
            continue
        if field.name in extras:
            row[field.name] = extras[field.name]
        elif field.name == "reference":
            row[field.name] = source.reference
        elif field.name == "completion_token_ids":
            # Rows wait for their shard: four bytes a token, instead of forty for a Python number.
            ids = completion.completion_token_ids
            row[field.name] = np.array(ids, np.int32) if ids else None
        elif field.name in _OF_LOGPROBS:
            row[field.name] = _OF_LOGPROBS[field.name](completion.logprobs)
        else:
            row[field.name] = getattr(completion, field.name, None)
    return row


def _mean_logprob(logprobs: Sequence[float | None] | None) -> float | None:
    known = [logprob for logprob in logprobs or () if logprob is not None]
    return sum(known) / len(known) if known else None


def _lowest_group_logprob(logprobs: Sequence[float | None] | None) -> float | None:
    """DeepConf's lowest group (arXiv 2508.15260), over log-probabilities of the drawn tokens."""
    known = np.array([logprob for logprob in logprobs or () if logprob is not None])
    if not len(known):
        return None
    size = min(GROUP_TOKENS, len(known))
    sums = np.concatenate([[0.0], np.cumsum(known)])
    return float((sums[size:] - sums[:-size]).min() / size)


_OF_LOGPROBS = {
    "mean_logprob": _mean_logprob,
    "lowest_group_logprob": _lowest_group_logprob,
}


def rows_to_table(
    schema: pa.Schema,
    rows: Sequence[Mapping[str, Any]],
    columns: pa.Table,
) -> pa.Table:
    """`rows` (from `output_row`) as a table of exactly `schema`.

    `columns` are the source's, with one row for each of `rows`.
    """
    arrays = []
    for field in schema:
        source_column = (field.metadata or {}).get(SOURCE_COLUMN)
        if source_column is None:
            arrays.append(pa.array((row[field.name] for row in rows), field.type))
        else:
            arrays.append(columns[source_column.decode()])
    return pa.Table.from_arrays(arrays, schema=schema)
