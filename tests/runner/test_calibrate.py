"""Calibration as a job: a file that the model takes, from the traces of a run, and a picture beside it."""

from pathlib import Path

import numpy as np
import pytest

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig
from dynts_batch.data.run_dir import RunDir
from dynts_batch.engine import Engine
from dynts_batch.engine.loader import load_model
from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.model_id import ModelId
from dynts_batch.kvcache.thoughts import load_thoughts
from dynts_batch.runner.calibrate import calibrate_thoughts
from dynts_batch.training.densities import calibrate
from dynts_batch.training.sparsity import trace_sparsity
from dynts_batch.training.traces import Trace, choose_units, read_traces


def test_the_job_calibrates_as_the_traces_say_and_the_engine_takes_its_file(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "thoughts.safetensors"
    assert calibrate_thoughts(str(run_dir), out, ["num_traces=2", "num_steps=500"]) == 0
    model, run = load_model(ModelConfig()), RunDir(str(run_dir))
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
        calibrate_thoughts(str(run_dir), tmp_path / "a", ["num_traces=0"])
