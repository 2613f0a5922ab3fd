"""Shared fixtures: tiny random models, made once a session; and which tests run side by side."""

import os
from pathlib import Path

import pytest
import torch

if (
    not torch.cuda.is_available()
):  # Triton's kernels run in its interpreter; it asks when it is imported
    os.environ["TRITON_INTERPRET"] = "1"
from tiny_models import make_tiny_model

torch.set_num_threads(1)  # several processes share two cores in these tests


@pytest.fixture(scope="session")
def tiny_model_dirs(tmp_path_factory: pytest.TempPathFactory) -> "TinyModels":
    return TinyModels(tmp_path_factory.mktemp("tiny"))


class TinyModels(dict[str, Path]):
    """Folder of each architecture's tiny checkpoint, made on first use."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def __missing__(self, architecture: str) -> Path:
        self[architecture] = make_tiny_model(architecture, self._folder)
        return self[architecture]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Two processes for the whole suite or a tier of it; named files and tests start sooner in one."""
    option, is_worker = config.option, hasattr(config, "workerinput")
    if is_worker or option.collectonly or config.args_source is pytest.Config.ArgsSource.ARGS:
        return
    if getattr(option, "numprocesses", 0) is None and not option.usepdb:
        option.numprocesses, option.dist = 2, "loadgroup"


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What starts Ray is `ray`, and runs in one process, one after the other; every other file stays together."""
    for item in items:
        if "cluster" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.ray)
        if config.pluginmanager.hasplugin("xdist"):
            group = "ray" if item.get_closest_marker("ray") else item.nodeid.partition("::")[0]
            item.add_marker(pytest.mark.xdist_group(group))
    if "long" not in config.option.markexpr:  # whatever else -m asks for
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if not item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=long)
