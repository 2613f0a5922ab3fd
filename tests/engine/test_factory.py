"""Laws of the seam between a configuration and an engine."""

import dataclasses
import shutil
import sys
from collections import defaultdict
from functools import partial
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import dynts_batch
from dynts_batch.config import Config, MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine.engine import Engine
from dynts_batch.engine.factory import check_engine, load_engine
from dynts_batch.engine.model import resolved
from dynts_batch.engine.model.files import model_path
from dynts_batch.engine.model.weights import weights_sha256
from dynts_batch.errors import ConfigError
from dynts_batch.testing.fake_engine import FakeEngine

DYNTS, THINKV = PolicyConfig("dynts", budget=200), PolicyConfig("thinkv", budget=240)
CONFIG = Config(
    sampling=SamplingConfig(max_new_tokens=8),
    policy=PolicyConfig("full"),
    memory=MemoryConfig(max_seqs=2, max_prompt_tokens=8),
)


def _with_model(name: str, **memory: float) -> Config:
    return dataclasses.replace(
        CONFIG,
        model=ModelConfig(name, device="cpu"),
        memory=dataclasses.replace(CONFIG.memory, **memory),
    )


def test_a_name_gives_the_engine_it_names(tiny_model_dirs):
    real = load_engine(_with_model(str(tiny_model_dirs["llama"])), num_threads=1)
    fake = load_engine(_with_model("fake"), num_threads=1)
    assert isinstance(real, Engine)
    assert isinstance(fake, FakeEngine)
    for engine in (real, fake):
        assert (engine.max_seqs, engine.arena.capacity) == (2, 16)
        assert engine.gpu_uuids == ()
        assert engine.allocator_peak_bytes is None


def test_checking_loads_nothing_and_refuses_what_loading_would(tiny_model_dirs, monkeypatch):
    monkeypatch.setattr("dynts_batch.engine.model.loader.load_model", None)
    name = str(tiny_model_dirs["llama"])
    identity = check_engine(_with_model(name), on_gpu=False).identity
    assert identity["name"] == name
    with pytest.raises(ConfigError, match="at least one sequence"):
        check_engine(_with_model(name, kv_gib=1e-7), on_gpu=False)


@pytest.mark.parametrize("policy", [DYNTS, THINKV], ids=["dynts", "thinkv"])
def test_checking_a_model_goes_down_and_calls_each_file_from_one_other(policy):
    """The walk went up from files that it had come down to, eight times,
    and four files looked for the same things."""
    package, callers, stack = str(Path(dynts_batch.__file__).parent), defaultdict(set), [""]

    def watch(frame, event, argument):
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(package):
            return
        if event == "return":
            stack.pop()
            return
        path = code.co_filename.removeprefix(package)
        # Methods ask a record for what it holds;
        # which of a file's own functions calls another is no step either.
        if "." not in code.co_qualname and path.startswith("/engine") and path != stack[-1]:
            callers[path].add(stack[-1])
        stack.append(path)

    config = dataclasses.replace(_with_model("embedded"), policy=policy)
    check_engine(config, on_gpu=False)  # what is imported then is no call
    sys.setprofile(watch)
    try:
        check_engine(config, on_gpu=False)
    finally:
        sys.setprofile(None)
    assert len(callers) > 5
    calling = set().union(*callers.values())  # what calls nothing may be asked by anyone
    assert {path for path, found in callers.items() if len(found) > 1} & calling == set()
    assert "/engine/model/resolved.py" in callers["/engine/model/files.py"]


def test_the_identity_of_a_model_is_the_same_in_every_process(tiny_model_dirs):
    config = _with_model(str(tiny_model_dirs["llama"]))
    on_cpu, on_gpu = (check_engine(config, on_gpu=on_gpu).identity for on_gpu in (False, True))
    assert on_cpu == on_gpu
    other = _with_model(str(tiny_model_dirs["qwen3"]))
    assert check_engine(other, on_gpu=False).identity["config_sha256"] != on_cpu["config_sha256"]


def test_other_weights_under_the_same_name_are_another_model(tiny_model_dirs, tmp_path):
    """A run must not go on with a checkpoint that was trained further in the same folder."""
    folder = shutil.copytree(tiny_model_dirs["llama"], tmp_path / "model")
    before = check_engine(_with_model(str(folder)), on_gpu=False).identity
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] += 0.01
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    after = check_engine(_with_model(str(folder)), on_gpu=False).identity
    assert {key for key in before if before[key] != after[key]} == {"weights_sha256"}


def test_missing_and_damaged_weights_are_refused_before_anything_loads(tiny_model_dirs, tmp_path):
    folder = shutil.copytree(tiny_model_dirs["llama"], tmp_path / "model")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ConfigError, match=r"model\.safetensors' is damaged"):
        check_engine(_with_model(str(folder)), on_gpu=False)
    weights.unlink()
    with pytest.raises(ConfigError, match=r"must hold its weights as model\*\.safetensors"):
        check_engine(_with_model(str(folder)), on_gpu=False)


@pytest.mark.parametrize("policy", [DYNTS, THINKV], ids=["dynts", "thinkv"])
def test_what_was_made_for_a_model_is_made_for_its_weights_wherever_they_lie(policy, tmp_path):
    """A name told nothing: other weights in a folder of the same name were taken,
    and a copy of the same in another not."""
    reasoner = Path(model_path("embedded"))
    copy = shutil.copytree(reasoner, tmp_path / "snapshots" / "abc123")
    config = dataclasses.replace(_with_model(str(copy)), policy=policy)
    check_engine(config, on_gpu=False)
    load_engine(config, num_threads=1)
    other = shutil.copytree(reasoner, tmp_path / "reasoner")
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"] += 0.01
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    made_for_embedded = {
        key: str(reasoner / f"{key}.safetensors") for key in ("predictor", "thoughts")
    }
    model = ModelConfig(name=str(other), device="cpu", **made_for_embedded)
    config = dataclasses.replace(config, model=model)
    for refuse in (partial(check_engine, on_gpu=False), partial(load_engine, num_threads=1)):
        with pytest.raises(
            ConfigError, match=r"must be made for model .*`dynts-batch .*` makes? one"
        ):
            refuse(config)


@pytest.mark.parametrize("policy", [DYNTS, THINKV], ids=["dynts", "thinkv"])
def test_a_worker_digests_the_weights_once(policy, monkeypatch):
    """It did so for what was made for the model, each time:
    a file server serves as many workers."""
    digested = []

    def digest(folder):
        digested.append(folder)
        return weights_sha256(folder)

    monkeypatch.setattr(resolved, "weights_sha256", digest)
    load_engine(dataclasses.replace(_with_model("embedded"), policy=policy), num_threads=1)
    assert digested == [Path(model_path("embedded"))]


@pytest.mark.parametrize(
    ("policy", "job"), [(DYNTS, "train-predictor"), (THINKV, "calibrate-thoughts")]
)
def test_where_there_is_none_the_message_says_what_makes_one_and_what_needs_none(
    policy, job, tiny_model_dirs
):
    config = dataclasses.replace(_with_model(str(tiny_model_dirs["llama"])), policy=policy)
    with pytest.raises(
        ConfigError, match=rf"`dynts-batch {job}` .* got null; or take a policy\.name"
    ):
        check_engine(config, on_gpu=False)


@pytest.mark.parametrize("name", ["fake", "fake:step_s=1"])
def test_a_fake_is_the_same_model_however_fast(name):
    assert check_engine(_with_model(name), on_gpu=False).identity == {"name": "fake"}


def test_a_policy_is_checked_for_every_engine():
    config = dataclasses.replace(_with_model("fake"), policy=PolicyConfig("widow", budget=9))
    with pytest.raises(ConfigError, match=r"policy\.name must be .* Did you mean window\?"):
        check_engine(config, on_gpu=False)
