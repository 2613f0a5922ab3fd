"""The types in which columns are stored.

Parquet, or Arrow's own kernels, do not know some Arrow types. These are stored as other types and
come back with every bit:

    timestamp[s], time32[s]     in milliseconds; as integers if a value of the column does not fit
    date64                      timestamp[ms]
    month_day_nano_interval     struct<months, days, nanoseconds>
    decimal of negative scale   of scale 0; if that takes too many digits, its bytes
    union                       struct<type_code, a field for each of its types>
    struct without fields       bool, true if not null
    views                       strings, binaries and lists that are not views
    extension                   itself, or what its storage is stored as

Dictionaries and run ends are encodings of values, not types. They are undone, and do not come back.
Knows nothing about files.
"""

from __future__ import annotations

from functools import partial

import pyarrow as pa

from dynts_batch.data.types import leaves
from dynts_batch.data.types.nested import is_list_view, is_plain_list, map_array, map_type

_VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
_MAX_DIGITS = 76


def plain_type(type_: pa.DataType) -> pa.DataType:
    """`type_` without encodings: the type that comes back."""
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return plain_type(type_.value_type)
    if isinstance(type_, pa.BaseExtensionType):
        storage = plain_type(type_.storage_type)
        return type_ if storage == type_.storage_type else storage
    return map_type(type_, plain_type)


def stored_type(type_: pa.DataType, *, is_far: bool = False) -> pa.DataType:
    """The type in which `type_` is stored.

    `is_far`: the column holds seconds that do not fit in milliseconds.
    """
    stored = partial(stored_type, is_far=is_far)
    if pa.types.is_dictionary(type_) or pa.types.is_run_end_encoded(type_):
        return stored(type_.value_type)
    if isinstance(type_, pa.BaseExtensionType):
        storage = stored(type_.storage_type)
        # Parquet brings back only the inner one.
        is_nested = isinstance(storage, pa.BaseExtensionType)
        return type_ if storage == type_.storage_type and not is_nested else storage
    if pa.types.is_union(type_):
        fields = [pa.field(f"{f.name}_{i}", stored(f.type)) for i, f in enumerate(type_)]
        return pa.struct([pa.field("type_code", pa.int8()), *fields])
    if is_list_view(type_):
        make = pa.list_ if pa.types.is_list_view(type_) else pa.large_list
        return make(type_.value_field.with_type(stored(type_.value_type)))
    if pa.types.is_struct(type_) and type_.num_fields == 0:
        return pa.bool_()
    nested = map_type(type_, stored)
    return nested if pa.types.is_nested(type_) else _stored_leaf(type_, is_far=is_far)


def _stored_leaf(type_: pa.DataType, *, is_far: bool) -> pa.DataType:
    if pa.types.is_timestamp(type_) and type_.unit == "s":
        return pa.int64() if is_far else pa.timestamp("ms", type_.tz)
    if type_ == pa.time32("s"):
        return pa.int32() if is_far else pa.time32("ms")
    if pa.types.is_date64(type_):
        return pa.timestamp("ms")
    if type_ == pa.month_day_nano_interval():
        return leaves.INTERVAL
    if pa.types.is_decimal(type_) and type_.scale < 0:
        digits = type_.precision - type_.scale
        if digits > _MAX_DIGITS:
            return pa.binary(type_.byte_width)
        return pa.decimal128(digits) if digits <= 38 else pa.decimal256(digits)
    return _VIEWS.get(type_, type_)


def to_stored(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """`array` as `type_`, which is the stored_type of its own type.

    Raises: pa.ArrowInvalid if seconds do not fit in milliseconds; then the column is_far.
    """
    mine = array.type
    if mine == type_:
        return array
    if pa.types.is_dictionary(mine):
        return leaves.picked(to_stored(array.dictionary, type_), array.indices)
    if pa.types.is_run_end_encoded(mine):
        return leaves.picked(to_stored(array.values, type_), leaves.run_indices(array))
    if isinstance(mine, pa.BaseExtensionType):
        return to_stored(array.storage, type_)
    if pa.types.is_union(mine):
        return leaves.struct_of_union(array, type_, to_stored)
    if is_list_view(mine):
        return leaves.list_of_view(array, type_, to_stored)
    if pa.types.is_struct(mine) and mine.num_fields == 0:
        return leaves.presence(array)
    if pa.types.is_nested(mine):
        return map_array(array, type_, to_stored)
    return leaves.to_stored(array, type_)


def from_stored(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """`array`, made by `to_stored`, in its original plain `type_`."""
    if array.type == type_:
        return array
    if isinstance(type_, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(type_, from_stored(array, type_.storage_type))
    if pa.types.is_union(type_):
        return leaves.union_of_struct(array, type_, from_stored)
    if is_list_view(type_):
        return leaves.view_of_list(array, type_, from_stored)
    if pa.types.is_struct(type_) and type_.num_fields == 0:
        return leaves.from_presence(array, type_)
    if pa.types.is_struct(type_) or pa.types.is_map(type_) or is_plain_list(type_):
        return map_array(array, type_, from_stored)
    return leaves.from_stored(array, type_)
