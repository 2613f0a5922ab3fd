"""open_source: from the `input` group of the configuration to a Source.

Owns which format a path has and which files belong to it; the formats themselves are in
columnar.py, jsonl.py, csv_text.py and openai_batch.py.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from importlib.resources import files

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from dynts_batch.config import InputConfig, SamplingConfig
from dynts_batch.data.filesystem import open_filesystem
from dynts_batch.data.readers.columnar import (
    ArrowFile,
    ColumnarTable,
    ParquetGroup,
    TablePart,
    readable,
)
from dynts_batch.data.readers.csv_text import CsvTable
from dynts_batch.data.readers.jsonl import JsonlTable
from dynts_batch.data.readers.openai_batch import ID_COLUMN, MESSAGES_COLUMN, OpenaiTable
from dynts_batch.data.readers.source import Source
from dynts_batch.data.readers.table import Table
from dynts_batch.data.schema import row_schema
from dynts_batch.data.snapshot import Snapshot
from dynts_batch.errors import InputError

_SUFFIXES = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
}


def open_source(config: InputConfig, sampling: SamplingConfig = SamplingConfig()) -> Source:
    """Open the data set that `config` names. Reads footers of Parquet, all lines of text formats.

    `sampling` is the run's: requests that bring parameters of their own must agree with it.

    Raises:
        InputError: no such file, unknown format, unreadable, empty, or a named column is missing
            or of a type that cannot serve. Duplicate ids are found by Source.validate().
    """
    assert config.path, "config.validate() refuses a missing input.path"
    location = config.path
    if location == "embedded":  # the problems that come with the package, as for model.name
        location = str(files("dynts_batch.lab") / "problems.parquet")
    try:
        filesystem, path = open_filesystem(location)
        info = filesystem.get_file_info(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot open input.path {config.path!r}: {error}") from error
    if info.type == pafs.FileType.NotFound:
        raise InputError(f"input.path must be a file or a folder, got {config.path!r}: not found")
    infos = _list_files(filesystem, info)
    snapshot, paths = Snapshot(filesystem, infos), [file.path for file in infos]
    format_ = _detect_format(paths, path) if config.format == "auto" else config.format
    table: Table
    if format_ == "openai":
        table = OpenaiTable(filesystem, _only_file(paths, path, format_), config.limit, sampling)
        config = dataclasses.replace(config, id_column=ID_COLUMN, messages_column=MESSAGES_COLUMN)
    else:
        table = _open_table(filesystem, path, paths, format_, config.limit)
    _check_storable(table)
    return Source(table, config, snapshot)


def _list_files(filesystem: pafs.FileSystem, info: pafs.FileInfo) -> list[pafs.FileInfo]:
    """The file itself, or all files below a folder in order, without hidden ones and markers."""
    if info.type == pafs.FileType.File:
        return [info]
    with readable(info.path):
        found = filesystem.get_file_info(pafs.FileSelector(info.path, recursive=True))
    relative = {file.path[len(info.path) :].strip("/"): file for file in found if file.is_file}
    return [
        file
        for name, file in sorted(relative.items())
        if not any(part.startswith((".", "_")) for part in name.split("/"))
    ]


def _detect_format(files: Sequence[str], path: str) -> str:
    formats = {format_ for file in files for s, format_ in _SUFFIXES.items() if file.endswith(s)}
    if len(formats) != 1:
        found = f"both {' and '.join(sorted(formats))}" if formats else "none of them"
        raise InputError(
            f"input.format cannot be told from {path}: files end in {', '.join(_SUFFIXES)};"
            f" found {found}. Name the file, or set input.format"
        )
    return formats.pop()


def _open_table(
    filesystem: pafs.FileSystem, path: str, files: Sequence[str], format_: str, limit: int | None
) -> Table:
    if format_ == "parquet":
        return _open_parquet(filesystem, path, files)
    if format_ == "arrow":
        return _open_arrow(filesystem, path, files)
    path = _only_file(files, path, format_)
    return (JsonlTable if format_ == "jsonl" else CsvTable)(filesystem, path, limit)


def _only_file(files: Sequence[str], path: str, format_: str) -> str:
    if files != [path]:
        raise InputError(f"input.path must be one file for format {format_}, got folder {path}")
    return path


def _open_parquet(filesystem: pafs.FileSystem, path: str, files: Sequence[str]) -> ColumnarTable:
    parts: list[TablePart] = []
    schemas = []
    data_files = [file for file in files if file == path or file.endswith(".parquet")]
    for file in data_files:
        with readable(file), filesystem.open_input_file(file) as handle:
            parquet = pq.ParquetFile(handle)
            schemas.append(parquet.schema_arrow)
            groups = range(parquet.num_row_groups)
            parts += [ParquetGroup(filesystem, file, parquet.metadata, g) for g in groups]
    return ColumnarTable(filesystem, path, parts, _unify(data_files, schemas))


def _open_arrow(filesystem: pafs.FileSystem, path: str, files: Sequence[str]) -> ColumnarTable:
    if f"{path}/dataset_dict.json" in files:
        with filesystem.open_input_stream(f"{path}/dataset_dict.json") as stream:
            splits = json.loads(stream.read())["splits"]
        raise InputError(
            f"input.path must be one split of a data set, got {path} with the splits"
            f" {', '.join(splits)}: append one to the path"
        )
    state = f"{path}/state.json"
    if state in files:  # datasets.save_to_disk: the folder may hold cache files that are not data
        with filesystem.open_input_stream(state) as stream:
            names = [entry["filename"] for entry in json.loads(stream.read())["_data_files"]]
        data_files = [f"{path}/{name}" for name in names]
    else:
        data_files = [file for file in files if file == path or file.endswith(".arrow")]
    parts = []
    for file in data_files:
        with readable(file):
            parts.append(ArrowFile(filesystem, file))
    schemas = [part.schema for part in parts]
    return ColumnarTable(filesystem, path, parts, _unify(data_files, schemas))


def _unify(files: Sequence[str], schemas: Sequence[pa.Schema]) -> pa.Schema:
    """One schema for all files: they may lack columns and differ in the width of numbers."""
    unified = pa.schema([])
    for file, schema in zip(files, schemas, strict=True):
        repeated = {name for name in schema.names if schema.names.count(name) > 1}
        if repeated:
            raise InputError(f"column names of {file} must be unique, got twice: {repeated}")
        try:
            unified = pa.unify_schemas(
                [unified, schema.remove_metadata()], promote_options="permissive"
            )
        except pa.ArrowException as error:
            raise InputError(f"{file} does not fit the files before it: {error}") from error
    return unified


def _check_storable(table: Table) -> None:
    """Source columns are part of every output row: find out now whether Parquet takes them."""
    for field in row_schema(table.schema):
        try:
            pq.write_table(pa.schema([field]).empty_table(), pa.BufferOutputStream())
        except pa.ArrowException as error:
            raise InputError(
                f"column {field.name!r} of {table.path} cannot be stored in Parquet: {error}"
            ) from error
