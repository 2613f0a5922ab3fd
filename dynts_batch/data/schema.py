"""The Arrow schema of one output row, every field with its description.

Owns names, types, units and nullability. writer.py fills rows, run_dir.py stores them. The source's
own columns come along under their own names, or as `source_<name>` if a name is taken.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from functools import partial

import pyarrow as pa

from dynts_batch.data.types.storable import from_stored, plain_type, stored_type
from dynts_batch.errors import ConfigError, choices_hint

DESCRIPTION = b"description"
SOURCE_COLUMN = b"source_column"
"""Metadata key of a field that comes from the source: its name there."""
JSON_TEXT = b"json_text"
"""Metadata key of a source field whose text is JSON, because its values have no type in common."""
FAR_SECONDS = b"far_seconds"
"""Metadata key of a source field with seconds that do not fit in milliseconds, see storable.py."""
_ARROW_TYPE = b"arrow_type"
"""Metadata key of a field that is stored as another type than the source's: the source's type."""


def _field(name: str, type_: pa.DataType, description: str, *, nullable: bool = True) -> pa.Field:
    return pa.field(name, type_, nullable, {DESCRIPTION: description.encode()})


_always = partial(_field, nullable=False)
_TEXT = pa.string()


def _list(type_: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", type_))  # the name that Parquet gives it


#: See records.TokenTrace.
TOKEN_TRACE = pa.struct(
    [
        ("token_texts", _list(pa.string())),
        ("evicted_at", _list(pa.int32())),
        ("half_evicted_at", _list(pa.int32())),
        ("kept_share", _list(pa.float32())),
        ("stored_len", _list(pa.int32())),
    ]
)

#: What the first attempt of a row was, which ran again with more room (policy.retry_budget).
FIRST_ATTEMPT = pa.struct(
    [
        ("finish_reason", pa.string()),
        ("correct", pa.bool_()),
        ("budget", pa.int64()),
        ("completion_tokens", pa.int64()),
        ("device_s", pa.float64()),
        ("energy_j", pa.float64()),
        ("cost_usd", pa.float64()),
    ]
)

IDENTITY = (
    _always("request_id", _TEXT, "Stable id of the prompt"),
    _always("sample_index", pa.int64(), "Which sample of the prompt, from 0"),
    _field("seed", pa.int64(), "The run's sampling seed"),
)
RESULT = (
    _field("prompt", _TEXT, "The text the model read, chat template applied"),
    _field("reasoning", _TEXT, "Generated text before the end of thinking"),
    _field("answer", _TEXT, "Generated text after the end of thinking; null if it never ended"),
    _field("extracted_answer", _TEXT, "The final answer found in the answer"),
    _always(
        "finish_reason",
        _TEXT,
        "stop, length (token limit), loop (it repeats itself), error, or skipped: the question did"
        " not need this sample (sampling.stop_when), which cost nothing and counts nowhere",
    ),
    _field("error_type", _TEXT, "Class of the error of a failed row"),
    _field("error_message", _TEXT, "Message of the error of a failed row"),
    _field("reference", _TEXT, "The right answer, from input.reference_column"),
    _field("correct", pa.bool_(), "Whether the extracted answer equals the reference"),
    _field(
        "text_matters",
        pa.bool_(),
        "Whether the other grading.text would judge this row otherwise: thinking never ended, and"
        " the last box in it is right. Null where nothing is judged, and in rows from before this"
        " column",
    ),
    _always("prompt_tokens", pa.int64(), "Tokens of the prompt"),
    _always("reasoning_tokens", pa.int64(), "Tokens generated before the end of thinking"),
    _always("completion_tokens", pa.int64(), "All generated tokens"),
    _always("evicted_tokens", pa.int64(), "Tokens dropped from the KV cache"),
    _always("num_evictions", pa.int64(), "Times tokens were dropped"),
    _field(
        "num_preemptions",
        pa.int64(),
        "Times the row lost its KV cache to others and was computed again; 0 with the arena engine,"
        " which reserves room",
    ),
    _field(
        "recomputed_tokens",
        pa.int64(),
        "Tokens that went through the model once more for that; null where the engine cannot tell",
    ),
    _always("peak_cache_len", pa.int64(), "Most tokens stored at once"),
    _always("peak_kv_bytes", pa.int64(), "Most KV bytes stored at once"),
    _always("full_kv_bytes", pa.int64(), "KV bytes this row would have held without eviction"),
    _always("queue_s", pa.float64(), "Seconds between submission and prefill"),
    _always("prefill_s", pa.float64(), "Seconds of the prompt pass"),
    _always("decode_s", pa.float64(), "Seconds from the first to the last generated token"),
    _always(
        "device_s", pa.float64(), "This row's share of device seconds; shares sum to the total"
    ),
    _field(
        "energy_j", pa.float64(), "This row's share of device energy, joules; null if unmeasured"
    ),
    _field(
        "cost_usd", pa.float64(), "This row's share of the cost, US dollars; null without prices"
    ),
    _field("worker_id", _TEXT, "Worker that ran the row"),
    _field("node", _TEXT, "Host name of that worker"),
    _field("device_name", _TEXT, "GPU model, or the CPU"),
    _field(
        "device_uuid", _TEXT, "NVML UUID of the GPU, or of several, joined by commas; null on CPU"
    ),
    _field("device_peak_bytes", pa.int64(), "Peak memory of the device when the row finished"),
    _field("attempt", pa.int64(), "1 for the first try of the row's shard"),
    _field(
        "completion_token_ids",
        _list(pa.int32()),
        "All generated tokens as the model wrote them, the stop token included: text need not be"
        " tokenised to the same ones. Null in error rows and in those of a run from before this"
        " column",
    ),
    _field(
        "forced_end",
        _TEXT,
        "Why the engine ended the thinking: budget (sampling.max_thinking_tokens) or loop; null:"
        " the model ended it, or nobody did",
    ),
    _field(
        "logprobs",
        _list(pa.float32()),
        "Log-probability of each generated token under the distribution that it was drawn from"
        " (sampling.logprobs); null for a token that the engine forced",
    ),
    _field("mean_logprob", pa.float64(), "Mean of these"),
    _field(
        "lowest_group_logprob",
        pa.float64(),
        "Lowest mean of 2,048 of these in a row, of a shorter completion the mean: where the model"
        " was least sure",
    ),
    _field(
        "first_attempt",
        FIRST_ATTEMPT,
        "Of a row that ran again with more room (policy.retry_budget): how its first attempt ended,"
        " with which budget, and what it took. device_s, energy_j and cost_usd of the row hold"
        " both attempts, all other columns are the second one's. `correct` is null if the run was"
        " judged by other rules since. Else null",
    ),
    _field(
        "token_trace",
        TOKEN_TRACE,
        "What became of every token in the KV cache, for a sample of rows (run.trace_rows), else"
        " null. Lists by token, prompt first: its text; how many tokens the sequence had when the"
        " last layer and head dropped it, and when fewer than half of them held it (null: never);"
        " the share of them that hold it at the end (0 or 1 unless layers and heads keep tokens of"
        " their own); and how many tokens each of them held once this one was stored",
    ),
)
OWN_FIELDS = {field.name: field for field in IDENTITY + RESULT}


def row_schema(source_schema: pa.Schema) -> pa.Schema:
    """The schema of output rows: identity, the source's columns, then everything a run adds.

    Source columns have the types in which they are stored. Schema-level metadata of the source
    (pandas, Hugging Face features) is dropped, because it describes another table.
    """
    taken = set(OWN_FIELDS) | set(source_schema.names)
    source_fields = []
    for field in source_schema:
        name = field.name
        if name in OWN_FIELDS:
            name = f"source_{name}"
            while name in taken:
                name = f"source_{name}"
            taken.add(name)
        source_fields.append(_source_field(field, name))
    return pa.schema([*IDENTITY, *source_fields, *RESULT])


def stored_schema(stored: pa.Schema, columns: Sequence[str] | None = None) -> pa.Schema:
    """The schema in which rows that are `stored` so are read.

    It has the columns of this version and those of the source. `columns` chooses some.

    Raises: pa.ArrowInvalid if one of them is not there.
    """
    source_fields = [field for field in stored if field.name not in OWN_FIELDS]
    schema = pa.schema([*IDENTITY, *source_fields, *RESULT], stored.metadata)
    if columns is None:
        return schema
    if missing := [name for name in columns if name not in schema.names]:
        raise pa.ArrowInvalid(f"it lacks {', '.join(missing)}")
    return pa.schema([schema.field(name) for name in columns])


def source_column_name(schema: pa.Schema, column: str) -> str:
    """The name of the source's `column` in output rows of `schema`.

    Raises: ConfigError if the source had no such column.
    """
    names = {
        field.metadata[SOURCE_COLUMN].decode(): field.name
        for field in schema
        if SOURCE_COLUMN in (field.metadata or {})
    }
    if column not in names:
        raise ConfigError(
            f"input.reference_column {column!r} is not a column of the input."
            f" {choices_hint(column, list(names))}"
        )
    return names[column]


def restored(batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch` of output rows with the source's columns in their types there, without encodings."""
    if not any(_ARROW_TYPE in (field.metadata or {}) for field in batch.schema):
        return batch
    fields, columns = [], []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        metadata = dict(field.metadata or {})
        if (encoded := metadata.pop(_ARROW_TYPE, None)) is not None:
            schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(encoded)))
            column = from_stored(column, schema.field(0).type)
            field = field.with_type(column.type).with_metadata(metadata)
        fields.append(field)
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields, batch.schema.metadata))


def stored_source_type(field: pa.Field) -> pa.DataType:
    """The type in which the source's column `field` is stored."""
    return stored_type(field.type, is_far=FAR_SECONDS in (field.metadata or {}))


def _source_field(field: pa.Field, name: str) -> pa.Field:
    plain, stored = plain_type(field.type), stored_source_type(field)
    metadata = {DESCRIPTION: f"Column {field.name!r} of the input".encode()}
    metadata |= field.metadata or {}
    metadata.pop(_ARROW_TYPE, None)  # the source may be the rows of another run
    metadata[SOURCE_COLUMN] = field.name.encode()
    if plain != stored:
        schema = pa.schema([pa.field("", plain)])
        metadata[_ARROW_TYPE] = base64.b64encode(schema.serialize().to_pybytes())
    # Nullable, whatever the source says, because the row of a broken line has no values.
    return pa.field(name, stored, True, metadata)
