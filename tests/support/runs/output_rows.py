"""Tables of output rows, as a worker would commit them,
for the tests of what stores and reads them."""

import pyarrow as pa

from dynts_batch.data.readers.source import SourceRow
from dynts_batch.data.schema import row_schema
from dynts_batch.data.writer import output_row, rows_to_table
from dynts_batch.errors import BadRowError
from dynts_batch.records import Completion

SCHEMA = row_schema(pa.schema([("question", pa.string())]))
UNITS = [("a", 0), ("a", 1), ("b", 0), ("b", 1)]


def output_table(units=UNITS, failed=(), answer="4") -> pa.Table:
    """One row per (request_id, sample_index) of `units`; those in `failed` are error rows."""
    rows = []
    for request_id, sample in units:
        source = SourceRow(0, request_id)
        completion = Completion(request_id, sample, "stop", answer=answer)
        if (request_id, sample) in failed:
            completion = Completion.failed(source.request(sample), BadRowError("line 1: bad\nhere"))
        rows.append(output_row(SCHEMA, source, completion, {}))
    return rows_to_table(SCHEMA, rows, pa.table({"question": ["2+2?"] * len(rows)}))
