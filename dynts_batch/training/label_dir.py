"""The label directory: labelled traces as Parquet, a file for every shard of their run.

    settings.json            what all files have in common; others are other labels
    shard-00042.parquet      the labels of a shard's traces: if it exists, it is complete
    manifest.json            how many traces there are and why others are not, written last

Owns names, schema and settings. Knows nothing about models or how labels come to be.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dynts_batch.data.files.storage import Storage
from dynts_batch.data.settings_diff import differences
from dynts_batch.errors import FingerprintError, RunDirError


@dataclass(frozen=True)
class LabelledTrace:
    """A trace's T thinking tokens after a prompt of `prompt_tokens`, and N of their hidden states.

    labels: [T] float32, the attention that each token receives from the answer.
    hidden_positions: [N] int32, ascending, the tokens that have a row in `hidden_states`.
    hidden_states: [N, hidden_size] float16.
    """

    request_id: str
    sample_index: int
    prompt_tokens: int
    token_ids: Sequence[int]
    labels: np.ndarray
    hidden_positions: np.ndarray
    hidden_states: np.ndarray


def label_schema(hidden_size: int) -> pa.Schema:
    """One row for each trace, with lists over its thinking tokens."""
    state = pa.list_(pa.float16(), hidden_size)
    fields = [
        ("request_id", pa.string(), "Stable id of the prompt"),
        ("sample_index", pa.int64(), "Which sample of the prompt"),
        ("prompt_tokens", pa.int64(), "Tokens of the prompt, behind which the thinking stands"),
        ("token_ids", pa.list_(pa.int32()), "The thinking tokens"),
        ("labels", pa.list_(pa.float32()), "Attention that each thinking token receives from an"
         " answer token: mean over answer tokens, heads and layers"),
        ("hidden_positions", pa.list_(pa.int32()), "Which thinking tokens have their hidden state"
         " here, from 0, ascending"),
        ("hidden_states", pa.list_(state), "Final-norm hidden states of these tokens"),
    ]  # fmt: skip
    described = [
        pa.field(name, kind, nullable=False, metadata={"description": text})
        for name, kind, text in fields
    ]
    return pa.schema(described)


class LabelDir:
    """One label directory, a path or URI. All methods raise RunDirError if the filesystem fails."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._storage = Storage(path)

    def create_or_resume(
        self, settings: Mapping[str, Any], defaults: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        """`defaults` gives the values of keys that the stored settings lack because they are older.

        Raises: FingerprintError if it holds labels of other settings; the message lists them.
        """
        stored = self._storage.read_json("settings.json")
        if stored is None:
            self._storage.create()
            self._storage.write_json("settings.json", settings)
        elif found := differences(stored, settings, defaults):
            raise FingerprintError(
                f"{self.path} holds labels with other settings ({'; '.join(found)}):"
                " delete it, or restore these settings to go on"
            )

    def settings(self) -> dict[str, Any]:
        """Raises: RunDirError if this is no label directory."""
        settings = self._storage.read_json("settings.json")
        if settings is None:
            raise RunDirError(
                f"{self.path} is not a label directory: make it with `dynts-batch label RUN_DIR`"
            )
        return settings

    def finished_shards(self) -> list[int]:
        """Numbers of the finished shards, ascending."""
        names = [info.base_name for info in self._storage.list()]
        return sorted(
            int(name.removeprefix("shard-").removesuffix(".parquet"))
            for name in names
            if name.startswith("shard-")
        )

    def commit_shard(
        self, shard: int, traces: Sequence[LabelledTrace], dropped: Counter[str], hidden_size: int
    ) -> None:
        """Store a shard's traces for good. `dropped` counts the rows without one, by reason."""
        schema = label_schema(hidden_size).with_metadata({"dropped": json.dumps(dropped)})
        stream = pa.BufferOutputStream()
        pq.write_table(
            pa.Table.from_batches([_to_batch(traces, schema)]), stream, compression="zstd"
        )
        self._storage.write(_name(shard), stream.getvalue())

    def write_manifest(self) -> dict[str, Any]:
        """Count what all shards hold and seal the directory. Returns the manifest."""
        num_traces, dropped = 0, Counter[str]()
        for shard in self.finished_shards():
            with self._open(shard) as file:
                num_traces += file.metadata.num_rows
                dropped.update(json.loads(file.metadata.metadata[b"dropped"]))
        manifest = {"num_traces": num_traces, "dropped": dict(sorted(dropped.items()))}
        self._storage.write_json("manifest.json", manifest)
        return manifest

    def read_manifest(self) -> dict[str, Any]:
        """Raises: RunDirError if the labels are not complete."""
        manifest = self._storage.read_json("manifest.json")
        if manifest is None:
            raise RunDirError(f"{self.path} is not finished: run `dynts-batch label` again")
        return manifest

    def read(self, shard: int) -> Iterator[LabelledTrace]:
        """The traces of a shard.

        Raises: RunDirError if an earlier version wrote it, without the lengths of prompts.
        """
        with self._open(shard) as file:
            if "prompt_tokens" not in file.schema_arrow.names:
                raise RunDirError(
                    f"{self.path} holds labels of an earlier version, without prompt_tokens: "
                    "delete it, and run `dynts-batch label` again"
                )
            for batch in file.iter_batches(batch_size=16):
                yield from _from_batch(batch)

    @contextmanager
    def _open(self, shard: int) -> Iterator[pq.ParquetFile]:
        """Raises: RunDirError if the file is not one of ours."""
        with self._storage.open(_name(shard)) as file:
            try:
                parquet = pq.ParquetFile(file)
                if b"dropped" not in (parquet.metadata.metadata or {}):
                    raise pa.ArrowInvalid("it does not say how many traces were dropped")
                yield parquet
            except (OSError, pa.ArrowException) as error:
                reason = str(error).partition("\n")[0].rstrip(".")
                raise RunDirError(
                    f"{self.path}/{_name(shard)} is damaged: {reason}. "
                    "Delete it, and run `dynts-batch label` again"
                ) from error


def _name(shard: int) -> str:
    return f"shard-{shard:05d}.parquet"


def _to_batch(traces: Sequence[LabelledTrace], schema: pa.Schema) -> pa.RecordBatch:
    hidden_size = schema.field("hidden_states").type.value_type.list_size
    ends = np.cumsum([0, *(len(trace.hidden_positions) for trace in traces)], dtype=np.int32)
    flat = [trace.hidden_states.ravel() for trace in traces] or [np.zeros(0, np.float16)]
    states = pa.FixedSizeListArray.from_arrays(pa.array(np.concatenate(flat)), hidden_size)
    columns = [
        pa.array([trace.request_id for trace in traces], pa.string()),
        pa.array([trace.sample_index for trace in traces], pa.int64()),
        pa.array([trace.prompt_tokens for trace in traces], pa.int64()),
        pa.array([trace.token_ids for trace in traces], pa.list_(pa.int32())),
        pa.array([trace.labels for trace in traces], pa.list_(pa.float32())),
        pa.array([trace.hidden_positions for trace in traces], pa.list_(pa.int32())),
        pa.ListArray.from_arrays(pa.array(ends), states),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _from_batch(batch: pa.RecordBatch) -> Iterator[LabelledTrace]:
    hidden_size = batch.schema.field("hidden_states").type.value_type.list_size
    for row in range(batch.num_rows):
        states = batch["hidden_states"][row].values.flatten().to_numpy(zero_copy_only=False)
        yield LabelledTrace(
            request_id=batch["request_id"][row].as_py(),
            sample_index=batch["sample_index"][row].as_py(),
            prompt_tokens=batch["prompt_tokens"][row].as_py(),
            token_ids=batch["token_ids"][row].as_py(),
            labels=batch["labels"][row].values.to_numpy(),
            hidden_positions=batch["hidden_positions"][row].values.to_numpy(),
            hidden_states=states.reshape(-1, hidden_size),
        )
