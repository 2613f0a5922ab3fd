"""Law of a worker's model: it is the run's, whatever lies under its path on the worker's node."""

import os
import shutil
from pathlib import Path

import pytest
from fake_run import make_config
from safetensors.torch import load_file, save_file

from dynts_batch.errors import ConfigError
from dynts_batch.runner.messages import Job
from dynts_batch.runner.prepared_run import prepare
from dynts_batch.runner.worker.same_model import CONTENTS, check_same_model
from dynts_batch.runner.worker.worker import Worker


def test_a_node_with_other_weights_under_the_same_path_does_no_row(tiny_model_dirs, tmp_path):
    """It wrote rows of another model under the run's fingerprint, in silence."""
    folder = shutil.copytree(tiny_model_dirs["llama"], tmp_path / "model")
    run = prepare(make_config(tmp_path, 4, model={"name": str(folder)}), is_local=True)
    job = Job(run.config, run.source.schema, 0, os.getcwd())
    Worker("a", job).close()
    _train_further(folder)
    with pytest.raises(ConfigError, match=r"same model on every node, got weights of '.*' on \S+ "):
        Worker("b", job)


def _train_further(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] += 0.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("key", CONTENTS)
def test_contents_are_compared_where_both_sides_know_them(key):
    run = dict.fromkeys(CONTENTS, "1") | {"name": "m", "dtype": "bfloat16"}
    check_same_model("m", run | {"dtype": "float32", "think_tags": []}, run)
    check_same_model("m", {"name": "fake"}, run)
    check_same_model("m", run, {name: x for name, x in run.items() if name != key})
    with pytest.raises(ConfigError, match=f"got {CONTENTS[key]} of 'm' on"):
        check_same_model("m", run | {key: "2"}, run)
