"""open_source: from the `input` group of the configuration to a Source.

Owns which table reads which format. location.py finds the files; columnar.py, jsonl.py, csv_text.py
and openai_batch.py have the formats.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dynts_batch.config import InputConfig, SamplingConfig
from dynts_batch.data.readers.formats.columnar import ColumnarTable, check_fit
from dynts_batch.data.readers.formats.csv_text import CsvTable
from dynts_batch.data.readers.formats.jsonl import JsonlTable
from dynts_batch.data.readers.formats.openai_batch import ID_COLUMN, MESSAGES_COLUMN, OpenaiTable
from dynts_batch.data.readers.formats.text_file import TextFile
from dynts_batch.data.readers.location import Location
from dynts_batch.data.readers.partition import PartitionedPart, folder_values
from dynts_batch.data.readers.source import Source
from dynts_batch.data.readers.table import Table
from dynts_batch.data.readers.table_parts import ArrowFile, ParquetGroup, TablePart, open_parquet
from dynts_batch.data.readers.unreadable import readable
from dynts_batch.data.schema import FAR_SECONDS, row_schema
from dynts_batch.data.snapshot import Snapshot
from dynts_batch.errors import InputError


def open_source(config: InputConfig, sampling: SamplingConfig = SamplingConfig()) -> Source:
    """Open the data set that `config` names. Reads footers of Parquet, all lines of text formats.

    `sampling` is the run's. Requests that bring parameters of their own must agree with it.

    Raises:
        InputError: no such file, unknown format, unreadable, empty, or a named column is missing
            or of a type that cannot serve. Source.validate() finds duplicate ids.
    """
    assert config.path, "config.validate() refuses a missing input.path"
    location = Location.of(config.path)
    format_ = location.detected_format() if config.format == "auto" else config.format
    table: Table
    if format_ == "parquet":
        table = _open_parquet(location)
    elif format_ == "arrow":
        table = _open_arrow(location)
    else:
        texts = [TextFile(location.filesystem, path) for path in location.paths(format_)]
        if format_ == "openai":
            table = OpenaiTable(texts, location.path, config.limit, sampling)
            config = dataclasses.replace(
                config, id_column=ID_COLUMN, messages_column=MESSAGES_COLUMN
            )
        else:
            kind = JsonlTable if format_ == "jsonl" else CsvTable
            table = kind(texts, location.path, config.limit)
    _check_storable(table)
    return Source(table, config, Snapshot(location.filesystem, location.infos))


def _open_parquet(location: Location) -> ColumnarTable:
    filesystem, paths = location.filesystem, location.paths("parquet")
    parts: list[TablePart] = []
    schemas: dict[str, pa.Schema] = {}
    for path in paths:
        with readable(path), filesystem.open_input_file(path) as file:
            parquet = open_parquet(file)
            schema = parquet.schema_arrow
            groups = [
                ParquetGroup(filesystem, path, parquet.metadata, group)
                for group in range(parquet.num_row_groups)
            ]
        found = folder_values(path, location.root)
        added = {name: value for name, value in found.items() if name not in schema.names}
        parts += [PartitionedPart(group, added) for group in groups] if added else groups
        schemas[path] = pa.schema([*schema, *((name, pa.string()) for name in added)])
    return ColumnarTable(filesystem, location.path, parts, _unify(parts, schemas))


def _open_arrow(location: Location) -> ColumnarTable:
    paths = _saved_files(location) or location.paths("arrow")
    parts = []
    for path in paths:
        with readable(path):
            parts.append(ArrowFile(location.filesystem, path))
    schema = _unify(parts, {part.path: part.schema for part in parts})
    far = {name for part in parts for name in part.far_columns}
    fields = [_marked_far(field) if field.name in far else field for field in schema]
    return ColumnarTable(location.filesystem, location.path, parts, pa.schema(fields))


def _marked_far(field: pa.Field) -> pa.Field:
    return field.with_metadata({**(field.metadata or {}), FAR_SECONDS: b"yes"})


def _saved_files(location: Location) -> list[str]:
    """The files that datasets.save_to_disk wrote; none if another program wrote the folder.

    Such a folder may hold cache files that are not data.

    Raises: InputError if it has splits.
    """
    paths = {info.path for info in location.infos}
    splits = f"{location.path}/dataset_dict.json"
    if splits in paths:
        names = ", ".join(_read_json(location, splits)["splits"])
        raise InputError(
            f"input.path must be one split of a data set, got {location.path} with the splits"
            f" {names}: append one to the path"
        )
    state = f"{location.path}/state.json"
    if state not in paths:
        return []
    saved = [entry["filename"] for entry in _read_json(location, state)["_data_files"]]
    return [f"{location.path}/{name}" for name in saved]


def _read_json(location: Location, path: str) -> dict[str, Any]:
    with readable(path), location.filesystem.open_input_stream(path) as stream:
        return json.loads(stream.read())


def _unify(parts: Sequence[TablePart], schemas: Mapping[str, pa.Schema]) -> pa.Schema:
    """One schema for all files; `schemas` has each one's own. They may lack columns and differ in
    the width of numbers, if all numbers fit."""
    unified = pa.schema([])
    for file, schema in schemas.items():
        repeated = {name for name in schema.names if schema.names.count(name) > 1}
        if repeated:
            raise InputError(f"column names of {file} must be unique, got twice: {repeated}")
        try:
            unified = _merged([unified, schema.remove_metadata()])
        except pa.ArrowException as error:
            raise InputError(f"{file} does not fit the files before it: {error}") from error
    for part in parts:
        check_fit(part, schemas[part.path], unified)
    return unified


def _merged(schemas: Sequence[pa.Schema]) -> pa.Schema:
    """Some files may have as a dictionary what others have plain: pandas stores categories so."""
    try:
        return pa.unify_schemas(schemas, promote_options="permissive")
    except pa.ArrowTypeError:
        return pa.unify_schemas(map(_decoded, schemas), promote_options="permissive")


def _decoded(schema: pa.Schema) -> pa.Schema:
    return pa.schema(
        field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in schema
    )


def _check_storable(table: Table) -> None:
    """Check now that Parquet takes the source's columns: every output row has them."""
    for field in row_schema(table.schema):
        try:
            pq.ParquetWriter(pa.BufferOutputStream(), pa.schema([field])).close()
        except pa.ArrowException as error:
            raise InputError(
                f"column {field.name!r} of {table.path} cannot be stored in Parquet: {error}"
            ) from error
