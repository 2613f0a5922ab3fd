"""The source's own columns on their way from the data set to the rows, as bytes of Arrow IPC.

They have the types in which they will be stored. A pickled slice of Arrow takes along its whole
parent; these bytes hold only the rows' values. Knows nothing about requests.
"""

from __future__ import annotations

import pyarrow as pa

from dynts_batch.data.schema import stored_source_type
from dynts_batch.data.types.storable import to_stored


def pack(columns: pa.Table) -> pa.Buffer:
    """The bytes of `columns` of the source, in the types in which they are stored."""
    stored = []
    for field, column in zip(columns.schema, columns.columns, strict=True):
        type_ = stored_source_type(field)
        stored.append(pa.chunked_array([to_stored(c, type_) for c in column.chunks], type_))
    table = pa.table(stored, names=columns.schema.names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def unpack(data: pa.Buffer) -> pa.Table:
    """The table that `pack` made bytes of."""
    return pa.ipc.open_stream(data).read_all()
