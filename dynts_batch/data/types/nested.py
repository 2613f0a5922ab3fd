"""One level of nesting: a type or an array whose children are changed, and nothing else.

Knows nothing about why they are changed.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

TypeMap = Callable[[pa.DataType], pa.DataType]
ArrayMap = Callable[[pa.Array, pa.DataType], pa.Array]
"""Makes of an array one of the given type."""


def is_list(type_: pa.DataType) -> bool:
    """Whether each row is a list, of any layout. A map does not count."""
    return is_plain_list(type_) or is_list_view(type_)


def is_list_view(type_: pa.DataType) -> bool:
    return pa.types.is_list_view(type_) or pa.types.is_large_list_view(type_)


def is_plain_list(type_: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(type_) for is_kind in kinds)


def map_type(type_: pa.DataType, change: TypeMap) -> pa.DataType:
    """`type_` with its children changed; itself if it has none."""
    if pa.types.is_struct(type_):
        return pa.struct([field.with_type(change(field.type)) for field in type_])
    if pa.types.is_map(type_):
        key = type_.key_field.with_type(change(type_.key_type))
        item = type_.item_field.with_type(change(type_.item_type))
        return pa.map_(key, item, keys_sorted=type_.keys_sorted)
    if pa.types.is_union(type_):
        fields = [field.with_type(change(field.type)) for field in type_]
        return pa.union(fields, mode=type_.mode, type_codes=type_.type_codes)
    if is_list(type_):
        return _list_type(type_, type_.value_field.with_type(change(type_.value_type)))
    return type_


def map_array(array: pa.Array, type_: pa.DataType, change: ArrayMap) -> pa.Array:
    """`array`, which is nested, as `type_`, which is nested in the same way.

    `change` gives each child its new type.
    """
    if pa.types.is_struct(type_):
        children = [change(array.field(i), field.type) for i, field in enumerate(type_)]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(children, fields=list(type_), mask=mask)
    if pa.types.is_map(type_):
        entries = pa.StructArray.from_arrays(
            [change(array.keys, type_.key_type), change(array.items, type_.item_type)],
            fields=[type_.key_field, type_.item_field],
        )
        return _with_child(array, type_, entries)
    return _with_child(array, type_, change(array.values, type_.value_type))


def _list_type(type_: pa.DataType, value: pa.Field) -> pa.DataType:
    if pa.types.is_fixed_size_list(type_):
        return pa.list_(value, type_.list_size)
    for is_kind, make in (
        (pa.types.is_large_list, pa.large_list),
        (pa.types.is_list_view, pa.list_view),
        (pa.types.is_large_list_view, pa.large_list_view),
    ):
        if is_kind(type_):
            return make(value)
    return pa.list_(value)


def _with_child(array: pa.Array, type_: pa.DataType, child: pa.Array) -> pa.Array:
    """`array` with `child` for its whole old child, including what a slice does not reach."""
    num_buffers = 1 if pa.types.is_fixed_size_list(type_) else 2
    buffers = array.buffers()[:num_buffers]
    return pa.Array.from_buffers(
        type_, len(array), buffers, array.null_count, array.offset, children=[child]
    )
