"""Values of types that are stored as other types, there and back. storable.py says which."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from dynts_batch.data.types.nested import ArrayMap

INTERVAL = pa.struct([("months", pa.int32()), ("days", pa.int32()), ("nanoseconds", pa.int64())])
_INTERVAL_BYTES = np.dtype([("months", "<i4"), ("days", "<i4"), ("nanoseconds", "<i8")])


def to_stored(array: pa.Array, type_: pa.DataType) -> pa.Array:
    mine = array.type
    if type_ == INTERVAL:
        return _interval_parts(array)
    if pa.types.is_fixed_size_binary(type_) or pa.types.is_integer(type_):
        return _reinterpreted(array, type_)
    if pa.types.is_date64(mine):
        return array.view(type_)
    if pa.types.is_decimal(mine):
        return _rescaled(array, mine, type_)
    return array.cast(type_)


def from_stored(array: pa.Array, type_: pa.DataType) -> pa.Array:
    if type_ == pa.month_day_nano_interval():
        return _interval(array)
    if pa.types.is_fixed_size_binary(array.type) or pa.types.is_integer(array.type):
        return _reinterpreted(array, type_)
    if pa.types.is_date64(type_):
        return array.view(type_)
    if pa.types.is_decimal(type_):
        return _rescaled(array, type_, type_)
    return array.cast(type_)


def run_indices(array: pa.RunEndEncodedArray) -> np.ndarray:
    """For each row, the index of its value in `values`."""
    rows = np.arange(array.offset, array.offset + len(array))
    return np.searchsorted(array.run_ends.to_numpy(), rows, side="right")


def picked(array: pa.Array, rows: pa.Array | np.ndarray) -> pa.Array:
    """The `rows` of `array`; a null row gives null."""
    if pa.types.is_nested(array.type):
        # Copying removes offsets. With one, pyarrow 26 takes the wrong rows of fixed-size lists in
        # fixed-size lists.
        whole = pa.record_batch({"": array})
        copy = pa.ipc.read_record_batch(whole.serialize(), whole.schema)
        array = copy.column(0)
    return array.take(rows)


def presence(array: pa.Array) -> pa.Array:
    """True for each row that is not null; null for the others."""
    return pa.array(np.ones(len(array), bool), mask=_nulls(array))


def from_presence(array: pa.Array, type_: pa.DataType) -> pa.Array:
    return pa.array([None if is_null else {} for is_null in _nulls(array)], type_)


def list_of_view(array: pa.Array, type_: pa.DataType, change: ArrayMap) -> pa.Array:
    """A list view as a list, its values in the order of the rows.

    The rows of a view may lie anywhere, and share values.
    """
    starts, sizes = (part.to_numpy(zero_copy_only=False) for part in (array.offsets, array.sizes))
    sizes = np.where(_nulls(array), 0, sizes)
    ends = np.cumsum(sizes)
    rows = np.repeat(starts - ends + sizes, sizes) + np.arange(sizes.sum())
    values = picked(change(array.values, type_.value_type), pa.array(rows, pa.int64()))
    is_large = pa.types.is_large_list(type_)
    make = pa.LargeListArray if is_large else pa.ListArray
    offsets = pa.array(np.concatenate([[0], ends]), pa.int64() if is_large else pa.int32())
    return make.from_arrays(offsets, values, type=type_, mask=pa.array(_nulls(array)))


def view_of_list(array: pa.Array, type_: pa.DataType, change: ArrayMap) -> pa.Array:
    make = pa.ListViewArray if pa.types.is_list_view(type_) else pa.LargeListViewArray
    starts = array.offsets.to_numpy(zero_copy_only=False)
    parts = (pa.array(part, array.offsets.type) for part in (starts[:-1], np.diff(starts)))
    values = change(array.values, type_.value_type)
    return make.from_arrays(*parts, values, type=type_, mask=pa.array(_nulls(array)))


def struct_of_union(array: pa.UnionArray, type_: pa.DataType, change: ArrayMap) -> pa.Array:
    """A struct of each row's type code and one field per type: its value there, null elsewhere."""
    codes, rows = _union_places(array)
    children = [pa.array(codes, pa.int8())]
    for index, code in enumerate(array.type.type_codes):
        values = change(array.field(index), type_.field(index + 1).type)
        children.append(picked(values, pa.array(rows, mask=codes != code)))
    return pa.StructArray.from_arrays(children, fields=list(type_))


def union_places(array: pa.UnionArray) -> Iterator[tuple[int, int]]:
    """For each row, the index of the field with its value, and the row in that field."""
    index_of = {code: index for index, code in enumerate(array.type.type_codes)}
    for code, row in zip(*(part.tolist() for part in _union_places(array)), strict=True):
        yield index_of[code], row


def _union_places(array: pa.UnionArray) -> tuple[np.ndarray, np.ndarray]:
    """Type codes, and rows in the field of each."""
    # array.type_codes and array.offsets are wrong for slices in pyarrow 26: they begin with the
    # whole array.
    codes = _buffer(array, 1, "<i1")
    is_dense = array.type.mode == "dense"
    return codes, _buffer(array, 2, "<i4") if is_dense else np.arange(len(array), dtype=np.int32)


def union_of_struct(array: pa.StructArray, type_: pa.DataType, change: ArrayMap) -> pa.Array:
    codes = array.field(0).cast(pa.int8()).fill_null(type_.type_codes[0])
    children = [
        change(array.field(index), field.type) for index, field in enumerate(type_, start=1)
    ]
    names = [field.name for field in type_]
    if type_.mode == "sparse":
        return pa.UnionArray.from_sparse(codes, children, names, type_.type_codes)
    offsets = pa.array(np.arange(len(array)), pa.int32())
    return pa.UnionArray.from_dense(codes, offsets, children, names, type_.type_codes)


def _interval_parts(array: pa.Array) -> pa.Array:
    values = _buffer(array, 1, _INTERVAL_BYTES)
    parts = [pa.array(np.ascontiguousarray(values[field.name])) for field in INTERVAL]
    return pa.StructArray.from_arrays(parts, fields=list(INTERVAL), mask=pa.array(_nulls(array)))


def _interval(array: pa.StructArray) -> pa.Array:
    values = np.zeros(len(array), _INTERVAL_BYTES)
    for index, field in enumerate(INTERVAL):
        values[field.name] = array.field(index).fill_null(0).to_numpy(zero_copy_only=False)
    is_valid = pa.array(~_nulls(array)).buffers()[1]
    return pa.Array.from_buffers(
        pa.month_day_nano_interval(), len(array), [is_valid, pa.py_buffer(values)]
    )


def _rescaled(array: pa.Array, scaled: pa.DataType, type_: pa.DataType) -> pa.Array:
    """`array` as the decimal `type_`, by way of `scaled` in the widest integers.

    Narrow integers would overflow on the way. The casts are unsafe, although nothing is lost,
    because Arrow's check also looks at the values under nulls.
    """
    wide = pa.decimal256(scaled.precision, scaled.scale)
    return array.cast(wide, safe=False).cast(type_, safe=False)


def _reinterpreted(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """The same bytes as another type of the same width."""
    return pa.Array.from_buffers(type_, len(array), array.buffers(), array.null_count, array.offset)


def _buffer(array: pa.Array, index: int, dtype: np.dtype | str) -> np.ndarray:
    """The rows' part of a buffer of fixed width."""
    values = np.frombuffer(array.buffers()[index] or b"", dtype)
    return values[array.offset : array.offset + len(array)]


def _nulls(array: pa.Array) -> np.ndarray:
    return array.is_null().to_numpy(zero_copy_only=False)
