"""The run directory: the only record of what a run has done, enough to go on from anywhere.

    config.yaml                  the resolved configuration of the latest start
    fingerprint.json             what all rows have in common; another one is another run
    rows/shard-00042.parquet     a finished shard: if it exists, it is complete and verified
    checkpoints/shard-00042.parquet  finished rows of an unfinished shard
    errors/shard-00042.jsonl     the failed rows of a finished shard, to read and to count
    workers/NAME-00007.parquet   telemetry of a worker
    manifest.json                the seal, written last
    driver.json                  who drives the run now, see claim.py
    regrade.json                 rows/ is being judged again, or that broke off

Owns names and the order of writes. storage.py makes each write atomic, and shard_table.py verifies
a shard. File names come from shard numbers and worker ids, never from data. Knows nothing of Ray.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs as pafs

from dynts_batch.config import Config
from dynts_batch.config_file import load_config, to_yaml
from dynts_batch.data.claim import Claim
from dynts_batch.data.files.damage import damage_named
from dynts_batch.data.files.storage import Storage
from dynts_batch.data.readers.columns import check_names, fit
from dynts_batch.data.schema import restored, stored_schema
from dynts_batch.data.shard_table import (
    Unit,
    error_lines,
    errors_of,
    failed_rows,
    in_order,
    iter_columns,
    read_error_lines,
    to_parquet,
    units_in,
    units_of,
)
from dynts_batch.data.stored_fingerprint import SHARD_KEYS, checked, refuse_another
from dynts_batch.data.telemetry_files import read_parts, write_part
from dynts_batch.errors import ConfigError, RunDirError

_SHARD_FILE = re.compile(r"shard-(\d{5,})\.(?:parquet|jsonl)")


class RunDir:
    """One run directory. Every method raises RunDirError if the filesystem fails."""

    def __init__(self, path: str) -> None:
        """`path` is a local path or a URI that pyarrow can open. Nothing is created yet."""
        self.path = path
        self._storage = Storage(path)

    # ---- start and end -------------------------------------------------------------------------

    def create_or_resume(
        self,
        config: Config,
        fingerprint: Mapping[str, Any],
        defaults: Mapping[str, Any] = MappingProxyType({}),
        renew: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
    ) -> bool:
        """Make this the directory of the run that `fingerprint` describes; True if it is new.

        Call it only while nobody drives the run, see Claim.wait_until_free.

        `fingerprint` is JSON data with at least `num_units` and `shard_rows`, because shard numbers
        mean nothing without them. `defaults` has the same form, and the values of keys that an
        older stored one lacks. `renew` translates a stored one, and the translation replaces it.

        Raises:
            FingerprintError: it holds a run with other settings; the message lists them.
            RunDirError: it holds something other than a run, or cannot be written.
        """
        assert fingerprint.keys() >= set(SHARD_KEYS), fingerprint.keys()
        self.refuse_half_graded()
        stored = self._storage.read_json("fingerprint.json")
        if stored is None:
            self._refuse_foreign_folder()
            self._storage.create()
            self._storage.write_json("fingerprint.json", fingerprint)
        else:
            renewed = renew(stored)
            refuse_another(self.path, renewed, fingerprint, defaults)
            if renewed != stored:
                self._storage.write_json("fingerprint.json", renewed)
        # Settings outside the fingerprint (workers, prices) may change between starts.
        self._storage.delete_temp_files()
        settings = to_yaml(config).encode()
        # A finished run may be on a read-only disk.
        if self._storage.read("config.yaml") != settings:
            self._storage.write("config.yaml", settings)
        return stored is None

    def claim(self) -> Claim:
        """A claim that makes this process the only driver of the run, see Claim."""
        return Claim(self.path, self._storage)

    def is_run(self) -> bool:
        """Whether this is the directory of a run, which may not have begun its work."""
        return self._storage.read("fingerprint.json") is not None

    def fingerprint(self, *groups: str) -> dict[str, Any]:
        """The stored fingerprint. RunDirError if there is none, or if it lacks one of `groups`."""
        return checked(self.path, self._storage.read_json("fingerprint.json"), groups)

    def chat_date(self) -> str | None:
        """The day that the run's chat template takes for today; None if there is none."""
        model = (self._storage.read_json("fingerprint.json") or {}).get("model")
        return model.get("chat_date") if isinstance(model, dict) else None

    def config(self) -> Config:
        """The configuration of the latest start; RunDirError if this is no run directory."""
        data = self._storage.read("config.yaml")
        if data is None:
            raise RunDirError(f"{self.path} is not a run directory: it has no config.yaml")
        try:
            return load_config(io.StringIO(data.decode()))
        except (UnicodeDecodeError, ConfigError) as error:
            raise RunDirError(
                f"{self.path}/config.yaml is damaged: {error}. Starting the run again mends it"
            ) from error

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Seal the run. Call it last: it states that every unit has a row."""
        self._storage.write_json("manifest.json", manifest)

    def read_manifest(self) -> dict[str, Any] | None:
        """The seal; None while the run is unfinished."""
        return self._storage.read_json("manifest.json")

    # ---- judging again -------------------------------------------------------------------------

    def begin_regrade(self, settings: Mapping[str, Any]) -> None:
        """State that, until `end_regrade`, some shards may follow other grading rules."""
        self._storage.write_json("regrade.json", settings)

    def end_regrade(self, config: Config, fingerprint: Mapping[str, Any]) -> None:
        """State that all shards are graded by the rules of `config`, which `fingerprint` names."""
        self._storage.write("config.yaml", to_yaml(config).encode())
        self._storage.write_json("fingerprint.json", fingerprint)
        self._storage.delete("regrade.json")

    def is_regrading(self) -> bool:
        """Whether it is being graded again, or that broke off."""
        return self._storage.read("regrade.json") is not None

    def refuse_half_graded(self) -> None:
        """Raises: RunDirError if the rows follow different rules."""
        if self.is_regrading():
            raise RunDirError(
                f"{self.path} was being graded again when that broke off: its rows do not all"
                " follow the same rules. Run `dynts-batch grade` on it again"
            )

    # ---- rows ----------------------------------------------------------------------------------

    def finished_shards(self) -> set[int]:
        """Numbers of the shards that need no more work. It costs one listing."""
        return set(self.list_shards("rows"))

    def commit_shard(self, shard: int, table: pa.Table, expected_units: Sequence[Unit]) -> None:
        """Store `shard` for good, its rows in the order of `expected_units`.

        Committing a shard again replaces it whole. Nothing is ever appended.

        Raises: RunDirError if the rows are not exactly the expected units; nothing is written then.
        """
        self._write_shard(shard, table, expected_units)
        self._storage.delete(_name("checkpoints", shard))

    def replace_shard(self, shard: int, table: pa.Table) -> None:
        """Store other columns for the rows of a finished shard. RunDirError if its rows differ.

        Its checkpoint stays: it may hold rows that were run again.
        """
        self._write_shard(shard, table, units_of(self.read_shard(shard)))

    def _write_shard(self, shard: int, table: pa.Table, expected_units: Sequence[Unit]) -> None:
        data = to_parquet(in_order(shard, table, expected_units))
        # Readers will find the encoded bytes, so check those and not our own table.
        assert units_in(data) == list(expected_units), f"shard {shard} changed in encoding"
        errors = error_lines(table)
        if errors:
            self._storage.write(_name("errors", shard, "jsonl"), errors)
        self._storage.write(_name("rows", shard), data)
        if not errors:  # a retry may have mended the shard
            self._storage.delete(_name("errors", shard, "jsonl"))

    @contextmanager
    def open_shard(self, shard: int) -> Iterator[pq.ParquetFile]:
        """A finished shard, opened so that only the parts that are read are fetched."""
        name = _name("rows", shard)
        with self._storage.open(name) as file, damage_named(f"{self.path}/{name}"):
            parquet = pq.ParquetFile(file)
            check_names(parquet.schema_arrow, stored_schema(parquet.schema_arrow))
            yield parquet

    def read_shard(self, shard: int) -> pa.Table:
        """The rows of a finished shard."""
        table = self._read_rows(_name("rows", shard))
        if table is None:
            raise RunDirError(f"{self.path} has no finished shard {shard}")
        return table

    def read_rows(
        self, columns: Sequence[str] | None = None, *, as_stored: bool = False
    ) -> Iterator[pa.RecordBatch]:
        """All committed rows in the order of the input, by batch, in the same columns.

        Source columns have the types of the source, or with `as_stored` those of storage."""
        schema: pa.Schema | None = None
        for shard in sorted(self.finished_shards()):
            with self.open_shard(shard) as file:
                its_schema = stored_schema(file.schema_arrow, columns)
                schema = schema or its_schema
                if its_schema.names != schema.names:
                    raise pa.ArrowInvalid("it has other columns than the shards before it")
                batches = iter_columns(file, schema)
                yield from batches if as_stored else map(restored, batches)

    def write_checkpoint(self, shard: int, table: pa.Table) -> None:
        """Make `table`, all rows of `shard` that are done so far, its checkpoint."""
        self._storage.write(_name("checkpoints", shard), to_parquet(table))

    def read_checkpoint(self, shard: int) -> pa.Table | None:
        """The rows of the latest checkpoint of `shard`, or None."""
        return self._read_rows(_name("checkpoints", shard))

    def failed_units(self) -> dict[int, list[Unit]]:
        """The units of finished shards whose row is an error. Shards without any are left out."""
        failed = {}
        for shard in sorted(self.finished_shards() & self.list_shards("errors").keys()):
            # errors/ says only where to look; the rows are the truth.
            if units := units_of(failed_rows(self.read_shard(shard))):
                failed[shard] = units
        return failed

    def read_errors(self) -> Iterator[dict[str, Any]]:
        """request_id, sample_index, error_type and error_message of every failed row."""
        for shard in sorted(self.finished_shards() & self.list_shards("errors").keys()):
            yield from self._read_errors(shard)

    # ---- telemetry and listings ----------------------------------------------------------------

    def write_telemetry(self, worker_id: str, part: int, table: pa.Table) -> None:
        """Store one part of a worker's telemetry. `worker_id` is letters, digits, `-` and `_`."""
        write_part(self._storage, worker_id, part, table)

    def read_telemetry(self, *, skip_damaged: bool = False) -> Iterator[pa.Table]:
        """All parts of all workers' telemetry, by worker and part, with samples.SCHEMA's columns.

        `skip_damaged`: an unreadable part costs a warning, not the parts after it.
        """
        return read_parts(self._storage, self.path, skip_damaged=skip_damaged)

    def list_shards(self, folder: str) -> dict[int, pafs.FileInfo]:
        """The files of `folder` (rows, checkpoints or errors) by shard number, in one listing."""
        infos = {info.base_name: info for info in self._storage.list(folder) if info.is_file}
        matches = {name: _SHARD_FILE.fullmatch(name) for name in infos}
        return {int(m.group(1)): infos[name] for name, m in matches.items() if m}

    # ---- files ---------------------------------------------------------------------------------

    def _refuse_foreign_folder(self) -> None:
        """Raise if the folder holds anything else: a run finds half of its files by listing."""
        foreign = [i.base_name for i in self._storage.list() if not i.base_name.startswith(".")]
        if foreign:
            raise RunDirError(
                f"run.dir must be a new folder, an empty one or a run directory, got {self.path}"
                f" with {', '.join(foreign[:5])} and no fingerprint.json"
            )

    def _read_rows(self, name: str) -> pa.Table | None:
        data = self._storage.read(name)
        if data is None:
            return None
        with damage_named(f"{self.path}/{name}"):
            table = pq.read_table(pa.BufferReader(data))
            return fit(table, stored_schema(table.schema))

    def _read_errors(self, shard: int) -> list[dict[str, Any]]:
        """Read them from errors/ or, if that file is damaged, from the rows."""
        lines = self._storage.read(_name("errors", shard, "jsonl")) or b""
        errors = read_error_lines(lines)
        return errors_of(self.read_shard(shard)) if errors is None else errors


def _name(folder: str, shard: int, suffix: str = "parquet") -> str:
    return f"{folder}/shard-{shard:05d}.{suffix}"
