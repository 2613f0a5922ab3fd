"""Triton's interpreter, without what it repeats at every call of a function inside a kernel.

At each such call it looks through the whole language for what to replace by its own functions. It
has done so when the kernel began, and doing it again took two thirds of the time of these tests.
"""

from collections.abc import Callable
from typing import Any

from triton import language
from triton.runtime import interpreter

_LANGUAGES = (language, language.core)
_replaced: set[int] = set()  # modules in which the running kernel's functions are the interpreter's


class _Scope:
    """The replacements of a kernel, which end with it."""

    def __init__(self, scope: Any) -> None:
        self._scope = scope

    def restore(self) -> None:
        _replaced.clear()
        self._scope.restore()


def replace_once() -> None:
    """From now on, in this process."""
    patch: Callable[[Any], Any] = interpreter._patch_lang
    if getattr(patch, "is_once", False):
        return

    def once(function: Any) -> _Scope | None:
        seen = {id(x) for x in function.__globals__.values() if any(x is y for y in _LANGUAGES)}
        if seen <= _replaced:
            return None
        _replaced.update(seen)
        return _Scope(patch(function))

    once.is_once = True  # type: ignore[attr-defined]
    interpreter._patch_lang = once
