"""Arrow types for columns of JSON values, found from every value of a stream in constant memory.

Some columns fit no single Arrow type: mixed types, free-form objects, integers that would lose
digits. They become JSON text, so that nothing is dropped and writing cannot fail later.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

_MAX_DEPTH = 16
_MAX_FIELDS = 64  # an object with more keys is a dictionary, not a record
_SCALARS = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string()}


class JsonType:
    """What was seen in one column, or in one place inside nested values."""

    def __init__(self, depth: int = 0) -> None:
        self._depth = depth
        self._kinds: set[type] = set()
        self._fields: dict[str, JsonType] = {}
        self._element: JsonType | None = None
        self._max_abs_int = 0
        self._overgrown = False

    def observe(self, value: Any) -> None:
        """Take one decoded JSON value into account. Null fits every type."""
        if value is None:
            return
        kind = type(value)
        self._kinds.add(kind)
        if kind is int:
            self._max_abs_int = max(self._max_abs_int, abs(value))
        elif kind is list or kind is dict:
            self._observe_nested(value)

    def arrow_type(self) -> pa.DataType | None:
        """The type that holds every value seen, or None if only JSON text does."""
        if self._overgrown:
            return None
        if not self._kinds:
            return pa.string()
        if self._kinds == {int, float}:  # doubles hold integers exactly up to 2**53
            return pa.float64() if self._max_abs_int <= 2**53 else None
        if len(self._kinds) > 1 or self._max_abs_int >= 2**63:
            return None
        (kind,) = self._kinds
        if kind is list:
            element = self._element.arrow_type() if self._element else pa.string()
            return None if element is None else pa.list_(element)
        if kind is dict:
            return self._struct_type()
        return _SCALARS[kind]

    def _observe_nested(self, value: list[Any] | dict[str, Any]) -> None:
        if self._depth == _MAX_DEPTH:
            self._overgrown = True
        if self._overgrown:
            return
        if isinstance(value, list):
            self._element = self._element or JsonType(self._depth + 1)
            for item in value:
                self._element.observe(item)
            return
        for key, item in value.items():
            if key not in self._fields:
                self._fields[key] = JsonType(self._depth + 1)
            self._fields[key].observe(item)
        self._overgrown = len(self._fields) > _MAX_FIELDS

    def _struct_type(self) -> pa.DataType | None:
        types = {key: field.arrow_type() for key, field in self._fields.items()}
        if not types or None in types.values():  # Parquet has no struct without fields
            return None
        return pa.struct(list(types.items()))
