"""Any Arrow column as JSON data, for JSON Lines, prompts and references.

    null            nulls, NaN and infinity
    number          with as few digits as tell it from its neighbours
    text            text; binaries in base64; dates, times and durations in ISO 8601; decimals with
                    all digits; UUIDs
    list, object    lists and structs; a map is a list of [key, value], because its keys may be
                    other than text, or repeated

Knows nothing about what columns mean.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from dynts_batch.data.types import leaves
from dynts_batch.data.types.iso_time import (
    iso_date,
    iso_duration,
    iso_interval,
    iso_time,
    iso_timestamp,
)
from dynts_batch.data.types.nested import is_list_view, map_array
from dynts_batch.data.types.storable import stored_type, to_stored

_DAY_MS = 86_400_000


def json_values(array: pa.Array | pa.ChunkedArray) -> list[Any]:
    """One value for each row.

    Raises: UnicodeDecodeError if text is not UTF-8, which Arrow does not check when it reads.
    """
    if isinstance(array, pa.ChunkedArray):
        return [value for chunk in array.chunks for value in json_values(chunk)]
    type_ = array.type
    if isinstance(type_, pa.BaseExtensionType):
        return _extended(array)
    if pa.types.is_dictionary(type_):
        values = json_values(array.dictionary)
        return [None if i is None else values[i] for i in array.indices.to_pylist()]
    if pa.types.is_run_end_encoded(type_):
        values = json_values(array.values)
        return [values[i] for i in leaves.run_indices(array)]
    if pa.types.is_nested(type_):
        return _nested(array)
    return _simple(array)


def with_valid_text(array: pa.Array) -> pa.Array:
    """`array` with a replacement character for each byte of its text that is not UTF-8."""
    if is_list_view(array.type) or pa.types.is_union(array.type):
        return with_valid_text(to_stored(array, stored_type(array.type)))
    if isinstance(array.type, pa.BaseExtensionType):
        return with_valid_text(array.storage)
    if pa.types.is_nested(array.type):
        return map_array(array, array.type, lambda child, _: with_valid_text(child))
    if array.type.id not in _TEXT_IDS:
        return array
    values = array.cast(pa.large_binary()).to_pylist()
    texts = [None if value is None else value.decode(errors="replace") for value in values]
    return pa.array(texts, array.type)


def json_line(row: Mapping[str, Any]) -> bytes:
    """`row`, whose values are JSON data, as one line of JSON Lines."""
    return f"{json.dumps(row, ensure_ascii=False, allow_nan=False)}\n".encode()


def _nested(array: pa.Array) -> list[Any]:
    type_ = array.type
    if pa.types.is_union(type_):
        children = [json_values(array.field(i)) for i in range(type_.num_fields)]
        return [children[index][row] for index, row in leaves.union_places(array)]
    if pa.types.is_struct(type_):
        columns = [json_values(array.field(i)) for i in range(type_.num_fields)]
        names = [field.name for field in type_]
        rows = zip(*columns, strict=True) if columns else ((),) * len(array)
        return _where_valid(array, (dict(zip(names, row, strict=True)) for row in rows))
    starts, ends = _bounds(array)
    first, last = (int(starts.min()), int(ends.max())) if len(starts) else (0, 0)
    rest = slice(first, last)
    if pa.types.is_map(type_):
        parts = (array.keys[rest], array.items[rest])
        values = [list(pair) for pair in zip(*map(json_values, parts), strict=True)]
    else:
        values = json_values(array.values[rest])
    bounds = zip(starts - first, ends - first, strict=True)
    return _where_valid(array, (values[start:end] for start, end in bounds))


def _bounds(array: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The start and the end of each row's values. Those of null rows mean nothing."""
    if pa.types.is_fixed_size_list(array.type):
        size = array.type.list_size
        starts = (array.offset + np.arange(len(array))) * size
        ends = starts + size
    elif is_list_view(array.type):
        starts, sizes = (p.to_numpy(zero_copy_only=False) for p in (array.offsets, array.sizes))
        ends = starts + sizes
    else:
        offsets = array.offsets.to_numpy(zero_copy_only=False)
        starts, ends = offsets[:-1], offsets[1:]
    return starts, ends


def _where_valid(array: pa.Array, values: Iterable[Any]) -> list[Any]:
    if not array.null_count:
        return list(values)
    is_valid = array.is_valid().to_pylist()
    return [value if ok else None for value, ok in zip(values, is_valid, strict=True)]


def _extended(array: pa.Array) -> list[Any]:
    if array.type.extension_name == "arrow.uuid":
        ids = array.storage.to_pylist()
        return [None if id_ is None else str(uuid.UUID(bytes=id_)) for id_ in ids]
    if array.type.extension_name == "arrow.bool8":
        return json_values(array.storage.cast(pa.bool_()))
    return json_values(array.storage)


def _simple(array: pa.Array) -> list[Any]:
    type_ = array.type
    if pa.types.is_floating(type_):
        return _numbers(array)
    if pa.types.is_decimal(type_):
        return _texts(array.to_pylist(), lambda value: f"{value:f}")
    if pa.types.is_temporal(type_):
        return _times(array)
    if pa.types.is_binary(type_) or type_.id in _BINARY_IDS:
        return _texts(array.to_pylist(), lambda value: base64.b64encode(value).decode())
    return array.to_pylist()


_TEXT_IDS = {t.id for t in (pa.string(), pa.large_string(), pa.string_view())}
_BINARY_IDS = {t.id for t in (pa.large_binary(), pa.binary_view(), pa.binary(1))}


def _numbers(array: pa.Array) -> list[float | None]:
    """Floats as the shortest decimals of their own width: a 32-bit 0.1 is 0.1."""
    values = array.to_numpy(zero_copy_only=False)
    if array.type != pa.float64():
        narrow = values.astype(np.float16 if array.type == pa.float16() else np.float32)
        values = [float(str(value)) for value in narrow]
    is_number = np.isfinite(np.asarray(values, np.float64)).tolist()
    is_valid = array.is_valid().to_pylist()
    each = zip(values, is_number, is_valid, strict=True)
    return [float(value) if finite and ok else None for value, finite, ok in each]


def _times(array: pa.Array) -> list[str | None]:
    type_ = array.type
    if type_ == pa.month_day_nano_interval():
        return _texts(array.to_pylist(), lambda value: iso_interval(*value))
    numbers = array.view(pa.int32() if type_.bit_width == 32 else pa.int64()).to_pylist()
    if pa.types.is_date32(type_):
        return _texts(numbers, iso_date)
    if pa.types.is_date64(type_):
        return _texts(numbers, lambda value: iso_date(value // _DAY_MS))
    if pa.types.is_time(type_):
        return _texts(numbers, lambda value: iso_time(value, type_.unit))
    if pa.types.is_duration(type_):
        return _texts(numbers, lambda value: iso_duration(value, type_.unit))
    return _texts(numbers, lambda value: iso_timestamp(value, type_.unit, type_.tz))


def _texts(values: Iterable[Any], text: Callable[[Any], str]) -> list[str | None]:
    return [None if value is None else text(value) for value in values]
