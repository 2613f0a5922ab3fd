"""Calibration as a job: a file that the model takes, from the traces of a run,
and a picture beside it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_run import make_config
from local_run import finish_run

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.shard_table import Unit
from dynts_batch.engine import Engine
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.errors import ConfigError, DyntsError, RunDirError
from dynts_batch.kvcache.model_id import ModelId
from dynts_batch.kvcache.policies.thinkv.thoughts import load_thoughts
from dynts_batch.runner.calibrate import calibrate_thoughts
from dynts_batch.runner.prepared_run import prepare
from dynts_batch.training import sparsity
from dynts_batch.training.densities import calibrate
from dynts_batch.training.sparsity import SparsityMeter, trace_sparsity
from dynts_batch.training.traces import Trace, choose_units, read_traces


def test_the_job_calibrates_as_the_traces_say_and_the_engine_takes_its_file(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "thoughts.safetensors"
    assert calibrate_thoughts(str(run_dir), out, ["num_traces=2", "num_steps=500"]) == 0
    model, run = load_model(resolve_model(ModelConfig())), RunDir(str(run_dir))
    renderer = PromptRenderer(model.tokenizer)
    traces = [
        trace
        for shard, units in sorted(choose_units(run, 1).items())
        for trace in read_traces(run, shard, units, renderer)
        if isinstance(trace, Trace)
    ][:2]
    expected = calibrate([trace_sparsity(model, trace, 500) for trace in traces]).thoughts
    loaded = load_thoughts(
        out, model=ModelId("embedded"), num_layers=model.config.num_hidden_layers
    )
    assert loaded.layers == expected.layers
    np.testing.assert_allclose((loaded.low, loaded.high), (expected.low, expected.high))
    printed = capsys.readouterr().out
    assert ("transition above" if expected.layers else "one type of thought") in printed
    assert "measured on 2 traces" in printed
    assert out.with_suffix(".svg").read_text().startswith("<?xml")
    policy = PolicyConfig("thinkv", budget=240, window_size=32)
    Engine.load(ModelConfig(thoughts=str(out)), policy, memory=MemoryConfig(max_seqs=1))


def test_what_calibrates_nothing_is_refused(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="num_traces must be at least 1"):
        calibrate_thoughts(str(run_dir), tmp_path / "a.safetensors", ["num_traces=0"])


@pytest.mark.parametrize(
    "name", ["thoughts", "thoughts.svg", "folder.safetensors", "file/a.safetensors"]
)
def test_a_wrong_place_for_the_result_is_refused_before_the_work(name: str, tmp_path: Path) -> None:
    """OUT.svg would have been both of its files,
    and a missing folder was found out after the last trace."""
    (tmp_path / "folder.safetensors").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"OUT must be a file named \*\.safetensors, .*, got"):
        calibrate_thoughts(str(tmp_path / "no run"), tmp_path / name, [])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            {"policy": {"name": "window", "budget": 16}},
            "policy.name=full .*, got 'window' and False",
        ),
        ({"policy": {"name": "full", "quantize": True}}, "got 'full' and 'nvfp4'"),
        ({"input": {"reference_column": None}}, "got 3 rows of which 0 are graded"),
    ],
)
def test_a_run_whose_traces_tell_nothing_is_refused(
    groups: dict[str, dict[str, Any]], message: str, tmp_path: Path
) -> None:
    groups = {"policy": {"name": "full", "budget": None}, "grading": {"kind": "none"}} | groups
    if "input" not in groups:
        groups["grading"] = {"kind": "exact"}
    run = finish_run(make_config(tmp_path, num_rows=3, **groups))
    with pytest.raises(DyntsError, match=message):
        calibrate_thoughts(run.path, tmp_path / "thoughts.safetensors", [])


def test_an_unfinished_run_is_refused(tmp_path: Path) -> None:
    config = make_config(tmp_path, num_rows=3, policy={"name": "full", "budget": None})
    prepare(config, is_local=True)
    with pytest.raises(RunDirError, match="must be a finished run: resume it first"):
        calibrate_thoughts(str(config.run.dir), tmp_path / "thoughts.safetensors", [])


@pytest.mark.long
def test_a_worker_that_dies_is_replaced_and_its_traces_are_measured(
    run_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mark = tmp_path / "died"

    class DyingMeter(SparsityMeter):
        def run_shard(self, shard: int, units: Sequence[Unit]) -> list[np.ndarray]:
            if not mark.exists():
                mark.touch()
                os._exit(1)
            return super().run_shard(shard, units)

    monkeypatch.setattr(sparsity, "SparsityMeter", DyingMeter)
    out = tmp_path / "new" / "folder" / "thoughts.safetensors"
    assert calibrate_thoughts(str(run_dir), out, ["num_steps=50"]) == 0
    num_chosen = sum(map(len, choose_units(RunDir(str(run_dir)), 1).values()))
    assert f"measured on {num_chosen} traces" in capsys.readouterr().out
    assert mark.exists()
    assert out.is_file()
