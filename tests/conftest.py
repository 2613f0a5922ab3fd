"""Shared fixtures: tiny random models, made once a session; and which tests run side by side."""

import os
import re
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Before any test imports torch and Triton;
    the process that only hands tests out needs neither."""
    if getattr(config.option, "numprocesses", None):
        return
    import torch

    torch.set_num_threads(1)  # several processes share two cores in these tests
    from hypothesis import settings

    settings.register_profile("any machine", deadline=None)  # a busy one stalls for seconds
    settings.load_profile("any machine")
    # Its kernels run in its interpreter, beside which vLLM's build for CPUs does not load.
    if not torch.cuda.is_available() and find_spec("vllm") is None:
        os.environ["TRITON_INTERPRET"] = "1"
        with suppress(ModuleNotFoundError):
            from triton_interpreter import replace_once

            replace_once()


@pytest.fixture(scope="session")
def tiny_model_dirs(tmp_path_factory: pytest.TempPathFactory) -> "TinyModels":
    return TinyModels(tmp_path_factory.mktemp("tiny"))


class TinyModels(dict[str, Path]):
    """Folder of each architecture's tiny checkpoint, made on first use."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, architecture: str) -> Path:
        from tiny_models import make_tiny_model

        self[architecture] = make_tiny_model(architecture, self._folder)
        return self[architecture]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Two processes for the whole suite or a tier of it;
    named files and tests start sooner in one."""
    option, is_one_of_two = config.option, hasattr(config, "workerinput")
    is_part = option.collectonly or config.args_source is pytest.Config.ArgsSource.ARGS
    if is_one_of_two or is_part or option.usepdb:
        return
    if getattr(option, "numprocesses", 0) is None:
        option.numprocesses, option.dist, option.loadscopereorder = 2, "loadfile", False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays in one process, and all files that start Ray in the same:
    one cluster at a time."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduler(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            path = super()._split_scope(nodeid)
            return "ray" if starts_ray(config.rootpath / path) else path

    return Scheduler(config, log) if config.option.dist == "loadfile" else None


@cache
def starts_ray(path: Path) -> bool:
    return bool(re.search(r"\.mark\.ray\b|\bcluster[,:)]|\brun_dir: Path", path.read_text()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What has the cluster is marked `ray`; what is marked `long` runs
    only where -m says that word."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ray)
            assert starts_ray(item.path), f"{item.path} must say so"
    if "long" not in config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
