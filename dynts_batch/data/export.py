"""The rows of a run in the order of its input, in the formats that others read.

Owns the formats and the size of files. Reads only committed rows, a batch at a time, so it needs
the memory of one file. Knows nothing about grading or reports.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dynts_batch.data.files.storage import Storage
from dynts_batch.data.openai_response import response_line
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.types.json_values import json_line, json_values, with_valid_text
from dynts_batch.errors import ConfigError, RunDirError, choices_hint

FORMATS = ("parquet", "jsonl", "openai", "datasets", "hub")
#: Shards are small, so their rows are gathered into row groups of a size that readers like.
_GROUP_BYTES = 64 << 20


def export(
    run_dir: RunDir,
    target: str,
    format_: str,
    *,
    file_bytes: int,
    columns: Sequence[str] | None = None,
    is_partial: bool = False,
    is_private: bool = True,
) -> int:
    """Write the rows of `run_dir` to the new folder `target`, or to the hub repository `target`.

    Each file holds about `file_bytes` of `format_`. `columns` None: all. Returns how many rows.

    Raises:
        ConfigError: unknown columns, or a target that is not empty.
        RunDirError: it is no run directory, or the run is not finished and not `is_partial`, or its
            rows follow different rules of grading, or a file cannot be read or written.
    """
    run_dir.refuse_half_graded()
    if run_dir.read_manifest() is None and not is_partial:
        run_dir.fingerprint()
        raise RunDirError(
            f"{run_dir.path} is not finished: run `dynts-batch run` on it first, "
            "or export what is there with --partial"
        )
    # JSON formats need JSON types; the others keep the types in which Parquet stores the columns.
    batches = _batches(run_dir, columns, as_stored=format_ not in ("jsonl", "openai"))
    if format_ in ("datasets", "hub"):
        _check_features(run_dir, columns)
    if format_ == "hub":
        return _push(batches, target, file_bytes, is_private=is_private)
    storage = _new_folder(target)
    if format_ == "datasets":
        return _save_to_disk(batches, target, file_bytes)
    if format_ == "parquet":
        num_rows = _write_parquet(batches, storage.write, file_bytes)
    elif format_ == "openai":
        responses = _responses(batches, run_dir.config().model.name, _ended_at(run_dir))
        num_rows = _write_lines(responses, storage.write, file_bytes)
    else:
        num_rows = _write_lines(_rows(batches), storage.write, file_bytes)
    storage.delete_temp_files()
    return num_rows


def _batches(
    run_dir: RunDir, columns: Sequence[str] | None, *, as_stored: bool
) -> Iterator[pa.RecordBatch]:
    names = _schema(run_dir).names
    for name in columns or ():
        if name not in names:
            raise ConfigError(f"no such column: {name}. {choices_hint(name, names)}")
    return run_dir.read_rows(columns, as_stored=as_stored)


def _schema(run_dir: RunDir) -> pa.Schema:
    finished = run_dir.finished_shards()
    if not finished:
        raise RunDirError(f"{run_dir.path} has no finished shard")
    return run_dir.read_shard(min(finished)).schema


def _check_features(run_dir: RunDir, columns: Sequence[str] | None) -> None:
    """Raises: ConfigError if `datasets` has no feature for a column."""
    from datasets import Features

    for field in _schema(run_dir):
        if columns is not None and field.name not in columns:
            continue
        try:
            Features.from_arrow_schema(pa.schema([field.remove_metadata()]))
        except ValueError as error:
            raise ConfigError(
                f"column {field.name!r} is {field.type}, which the datasets package cannot hold: "
                "leave it out with --columns, or take --format parquet"
            ) from error


def _ended_at(run_dir: RunDir) -> int:
    """When the newest shard was written, in Unix time, so that every export is the same."""
    infos = run_dir.list_shards("rows").values()
    return max((info.mtime_ns for info in infos if info.mtime_ns), default=0) // 10**9


def _new_folder(target: str) -> Storage:
    storage = Storage(target)
    if storage.list():
        raise ConfigError(f"the target must be a new or an empty folder, got {target}")
    storage.create()
    return storage


def _write_parquet(
    batches: Iterator[pa.RecordBatch], write: Callable[[str, pa.Buffer], None], file_bytes: int
) -> int:
    num_rows = 0
    groups = _groups(batches, min(_GROUP_BYTES, 4 * file_bytes))
    for num_files, group in enumerate(groups):
        sink = pa.BufferOutputStream()
        with pq.ParquetWriter(sink, group.schema, compression="zstd") as writer:
            writer.write_table(group)
            num_rows += group.num_rows
            while sink.tell() < file_bytes and (more := next(groups, None)) is not None:
                writer.write_table(more)
                num_rows += more.num_rows
        write(f"part-{num_files:05d}.parquet", sink.getvalue())
    return num_rows


def _groups(batches: Iterator[pa.RecordBatch], num_bytes: int) -> Iterator[pa.Table]:
    gathered: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        gathered.append(batch)
        size += batch.nbytes
        if size >= num_bytes:
            yield pa.Table.from_batches(gathered).combine_chunks()
            gathered, size = [], 0
    if gathered:
        yield pa.Table.from_batches(gathered).combine_chunks()


def _write_lines(
    rows: Iterator[tuple[int, Mapping[str, Any]]],
    write: Callable[[str, bytes], None],
    file_bytes: int,
) -> int:
    """Write `rows` as JSON Lines. Each comes with the number of the run's rows that it holds."""
    num_rows = num_files = 0
    buffer = bytearray()
    for count, row in rows:
        buffer += json_line(row)
        num_rows += count
        if len(buffer) >= file_bytes:
            write(f"part-{num_files:05d}.jsonl", bytes(buffer))
            buffer, num_files = bytearray(), num_files + 1
    if buffer:
        write(f"part-{num_files:05d}.jsonl", bytes(buffer))
    return num_rows


def _rows(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for batch in batches:
        names = batch.schema.names
        for row in zip(*map(_json_column, batch.columns), strict=True):
            yield 1, dict(zip(names, row, strict=True))


def _json_column(column: pa.Array) -> list[Any]:
    try:
        return json_values(column)
    except UnicodeDecodeError:  # broken text of the input, in a column that nobody had to read
        return json_values(with_valid_text(column))


def _responses(
    batches: Iterator[pa.RecordBatch], model: str, created: int
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """One response per request. Its samples are neighbours in the order of the input."""
    rows = (row for _, row in _rows(batches))
    for _, samples in groupby(rows, key=lambda row: row["request_id"]):
        of_request = list(samples)
        yield len(of_request), response_line(of_request, model, created)


def _save_to_disk(batches: Iterator[pa.RecordBatch], target: str, file_bytes: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        data_set, num_rows = _load(batches, Path(folder), file_bytes)
        try:
            data_set.save_to_disk(target, max_shard_size=file_bytes)
        except OSError as error:
            raise RunDirError(f"cannot write {target}: {error}") from error
    return num_rows


def _push(
    batches: Iterator[pa.RecordBatch], target: str, file_bytes: int, *, is_private: bool
) -> int:
    """Push to the hub, with the token of the environment (HF_TOKEN) or of `hf auth login`."""
    from huggingface_hub.errors import HfHubHTTPError

    with tempfile.TemporaryDirectory() as folder:
        data_set, num_rows = _load(batches, Path(folder), file_bytes)
        try:
            data_set.push_to_hub(target, private=is_private, max_shard_size=file_bytes)
        except (ValueError, *HfHubHTTPError.__bases__) as error:  # no answer, or a bad one
            reason = str(error).partition("\n")[0]
            raise RunDirError(f"cannot push to {target!r} on the hub: {reason}") from error
    return num_rows


def _load(batches: Iterator[pa.RecordBatch], folder: Path, file_bytes: int) -> tuple[Any, int]:
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    storage = Storage(str(folder / "parquet"))
    storage.create()
    num_rows = _write_parquet(batches, storage.write, file_bytes)
    files = sorted(str(path) for path in (folder / "parquet").glob("*.parquet"))
    return Dataset.from_parquet(files, cache_dir=str(folder / "cache")), num_rows
