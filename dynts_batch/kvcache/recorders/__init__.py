"""The registry of columns, by the recorder that writes each. Importing this package registers its
own.

ThinKV's column is registered with its policy. So is a column of a policy outside this package.
"""

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules
from typing import TypeVar

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.recorders.recorder import Recorder

RECORDERS: dict[str, type[Recorder]] = {}
R = TypeVar("R", bound=type[Recorder])


def register(recorder: R) -> R:
    """Class decorator: a policy may require the recorder's column.

    Raises: ConfigError if another recorder's column has that name.
    """
    name = recorder.column.name
    if name in RECORDERS or name == "positions":
        raise ConfigError(f"a column's name must be new to be registered, got {name!r} again")
    RECORDERS[name] = recorder
    return recorder


def recorders_of(names: Iterable[str], companions: Iterable[object]) -> list[type[Recorder]]:
    """Recorders of the columns `names`, without those that cannot record anything with
    `companions`."""
    found = [RECORDERS[name] for name in names]
    return [recorder for recorder in found if recorder.has_use(companions)]


for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
