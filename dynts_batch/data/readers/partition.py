"""Columns in the names of folders, such as `year=2024/part-0.parquet`.

Spark, duckdb, polars and pandas write partition columns there and not into the files. They are
text. Knows nothing about what the files hold.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote

import pyarrow as pa

from dynts_batch.data.readers.table_parts import TablePart

_NULL = "__HIVE_DEFAULT_PARTITION__"


class PartitionedPart:
    """A part, with the columns that its folders' names add to all its rows."""

    def __init__(self, part: TablePart, values: Mapping[str, str | None]) -> None:
        self._part, self._values = part, values
        self.path, self.num_rows = part.path, part.num_rows

    def batches(self, names: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        for batch in self._part.batches(names):
            for name, value in self._values.items():
                if names is None or name in names:
                    column = pa.array([value] * batch.num_rows, pa.string())
                    batch = batch.append_column(name, column)
            yield batch


def folder_values(path: str, root: str) -> dict[str, str | None]:
    """The columns in the names of the folders between `root` and the file `path`."""
    folders = path.removeprefix(root).strip("/").split("/")[:-1]
    pairs = (folder.partition("=") for folder in folders)
    return {
        unquote(name): None if value == _NULL else unquote(value)
        for name, equals, value in pairs
        if name and equals
    }
