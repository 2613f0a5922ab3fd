"""Laws of the start of a run: what can be refused is refused in clear words, before Ray starts."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from fake_run import write_config, write_problems
from huggingface_hub import constants as hub_constants
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, T5Config

from dynts_batch.config import ModelConfig
from dynts_batch.config_file import load_config
from dynts_batch.data import claim as claim_module
from dynts_batch.data.run_dir import RunDir
from dynts_batch.engine.factory import check_engine
from dynts_batch.engine.model import files as files_module
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.errors import ConfigError
from dynts_batch.runner import prepared_run as prepared_run_module
from dynts_batch.runner import reason as reason_module
from dynts_batch.runner.prepared_run import prepare
from dynts_batch.runner.reason import reason


@pytest.fixture(autouse=True)
def _ray_is_not_reached(monkeypatch):
    def fail(*args):
        pytest.fail("the run went on to start Ray")

    monkeypatch.setattr(reason_module, "drive", fail)


@pytest.fixture
def config(tmp_path: Path) -> str:
    return str(write_config(tmp_path, write_problems(tmp_path / "problems.jsonl", 5)))


def _refused(capsys, config: str, *overrides: str) -> str:
    """The one message of a run that is refused."""
    capsys.readouterr()
    assert reason(config, overrides) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    message = captured.err.strip()
    assert message.startswith("error: ")
    assert "Traceback" not in message
    assert not (Path(config).parent / "run" / "rows").exists()
    return message.removeprefix("error: ")


@pytest.fixture
def hub_model(
    tmp_path: Path, tiny_model_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Hugging Face's cache, without a network:
    org/model at two commits, with other weights, and where main is."""
    monkeypatch.setattr(hub_constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "hub" / "models--org--model"
    for number, commit in enumerate(COMMITS):
        snapshot = shutil.copytree(tiny_model_dirs["llama"], folder / "snapshots" / commit)
        weights = load_file(snapshot / "model.safetensors")
        weights["model.norm.weight"] += number
        save_file(weights, snapshot / "model.safetensors", metadata={"format": "pt"})
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMITS[0])
    return folder


COMMITS = ("a1" * 20, "b2" * 20)


@pytest.mark.parametrize("branch", [None, "main"])
def test_workers_load_the_commit_that_the_fingerprint_names_though_its_branch_moves_on(
    branch: str | None, hub_model: Path, tmp_path: Path
) -> None:
    """They took whatever the branch stood for when they started: two models in one run."""
    path = write_config(tmp_path, write_problems(tmp_path / "problems.jsonl", 5))
    settings = ["model.name=org/model", f"model.revision={branch or 'null'}", "model.device=cpu"]
    run = prepare(load_config(str(path), settings), is_local=True)
    (hub_model / "refs" / "main").write_text(COMMITS[1])
    assert run.run_dir.fingerprint()["model"]["revision"] == COMMITS[0]
    for config in (run.config, run.run_dir.config()):  # a run's workers, and those that label it
        norm = load_model(resolve_model(config.model)).decoder.norm.weight
        assert torch.equal(norm, torch.ones_like(norm))


def test_the_hubs_snapshot_of_a_commit_is_the_model_of_that_commit(hub_model: Path) -> None:
    """A predictor that was made for the one is one for the other, and not for another commit's."""
    on_hub = resolve_model(ModelConfig("org/model")).id
    assert on_hub.revision == COMMITS[0]
    first, second = (
        resolve_model(ModelConfig(str(hub_model / "snapshots" / commit))).id for commit in COMMITS
    )
    assert first.is_same(on_hub)
    assert not second.is_same(on_hub)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("policy.widow_size=3", "unknown config key policy.widow_size"),
        ("run.shard_row=3", "unknown config key run.shard_row. Did you mean shard_rows?"),
        ("run.shard_rows=many", "run.shard_rows must be an integer, got 'many'"),
        ("input.path=nowhere.jsonl", "input.path must be a file or a folder, got 'nowhere.jsonl'"),
        ("input.prompt_column=questio", "input.prompt_column 'questio' is not a column of"),
        ("policy.window_size=16", "policy.window_size must be smaller than policy.budget (16)"),
        (
            "policy.name=expcted",
            "policy.name must be a policy or module:Class, got 'expcted'. Did you mean expected?",
        ),
        ("model.name=fake:speed=1", "model.name: unknown setting 'speed'"),
        ("workers.num_gpus=2", "workers.num_gpus must be at most 1 when engine.kind is arena"),
        (
            "sampling.num_samples=1000000000000",  # it took all memory to list their shards
            "run.shard_rows must be at least 5,000,000 for 5 prompts x 1,000,000,000,000 samples",
        ),
    ],
)
def test_a_wrong_setting_is_named(capsys, config, override, message):
    assert _refused(capsys, config, override).startswith(message)


def test_a_gpu_model_without_gpus_is_refused(capsys, config):
    message = _refused(capsys, config, "model.device=cuda", "workers.num_gpus=0")
    assert message.startswith("workers.num_gpus must be above 0 when model.device is cuda, got 0")


@pytest.mark.parametrize(
    ("settings", "lacking"),
    [
        (["workers.num_gpus=1"], "1 x 0.25 CPU and 1 GPU; it has"),
        (["model.device=cuda"], "1 x 0.25 CPU and 1 GPU; it has"),
        (["workers.num_cpus=9999"], "1 x 9999 CPU and 0 GPU; it has"),
    ],
)
def test_a_run_that_this_machine_cannot_serve_leaves_its_directory_to_the_corrected_one(
    capsys, monkeypatch, config, tmp_path, settings, lacking
):
    """Its fingerprint stayed, and the corrected run was refused as another one."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    message = _refused(capsys, config, *settings)
    assert message.startswith(f"workers.min must fit this machine, got {lacking}")
    assert not (tmp_path / "run").exists()
    assert prepare(load_config(config, ["sampling.seed=7"]), is_local=True).is_new


def test_a_run_that_began_elsewhere_is_found_by_a_machine_that_could_not_serve_it(
    monkeypatch, config
):
    asks_for_a_gpu = load_config(config, ["workers.num_gpus=1"])
    prepare(load_config(config), is_local=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert not prepare(asks_for_a_gpu, is_local=True).is_new


@pytest.mark.parametrize("has_row", [False, True])
def test_another_run_is_told_whether_the_directory_in_its_way_holds_a_row(
    capsys, config, tmp_path, has_row
):
    prepare(load_config(config), is_local=True)
    if has_row:
        (tmp_path / "run" / "checkpoints").mkdir()
        (tmp_path / "run" / "checkpoints" / "shard-00000.parquet").touch()
    message = _refused(capsys, config, "sampling.seed=7")
    assert message.endswith("It holds no row, so it may also be deleted.") is not has_row


@pytest.mark.parametrize(
    "name", ["{}/nope", "./nope", "../nope", "~/nope", "~nobody-here/nope", "my/models/nope"]
)
def test_a_model_path_that_leads_nowhere_is_refused_without_asking_the_hub(
    capsys, monkeypatch, config, tmp_path, name
):
    """It took half a minute, and eleven lines of the hub's client."""
    monkeypatch.setattr(files_module, "cached_file", lambda *_, **__: pytest.fail("asked the hub"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    message = _refused(capsys, config, f"model.name={name.format(tmp_path)}")
    assert message.endswith(f"got {name.format(tmp_path)!r}: no such folder")
    assert "\n" not in message


def test_a_name_without_a_folder_here_is_the_hubs(monkeypatch, hub_model, tmp_path):
    """Also beside other models of its organisation."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    assert resolve_model(ModelConfig("org/model")).id.revision == COMMITS[0]


def test_a_model_in_the_home_folder_is_found(monkeypatch, tmp_path, tiny_model_dirs):
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(tiny_model_dirs["llama"], tmp_path / "mine")
    beside = {"predictor": "~/p.safetensors", "tokenizer": "~/mine", "thoughts": "~/t.safetensors"}
    found = resolve_model(ModelConfig("~/mine", **beside)).files
    assert (found.folder, found.tokenizer) == (tmp_path / "mine", str(tmp_path / "mine"))
    assert (found.predictor, found.thoughts) == (
        tmp_path / "p.safetensors",
        tmp_path / "t.safetensors",
    )


def test_a_folder_of_gguf_files_asks_for_one(capsys, config, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "small-q4.gguf").touch()
    message = _refused(capsys, config, f"model.name={tmp_path}/model")
    assert message.startswith("model.name must name one GGUF file")
    assert message.endswith("a folder that holds small-q4.gguf")
    missing = f"{tmp_path}/model/SMALL.GGUF"
    assert "must be the path of a GGUF file" in _refused(capsys, config, f"model.name={missing}")


def test_a_sample_may_be_of_more_shards_than_a_run_may_have(config, monkeypatch):
    monkeypatch.setattr(prepared_run_module, "MAX_SHARDS", 2)
    settings = load_config(config, ["run.shard_rows=1"])
    with pytest.raises(ConfigError, match=r"run.shard_rows must be at least 3 for 5 prompts"):
        prepare(settings, is_local=True)
    sample = prepare(settings, is_local=True, choose=lambda plan: [3, 1])
    assert (sample.shards_to_do, sample.num_unasked) == ((1, 3), 3)


def test_a_predictor_that_is_not_there_is_said_to_be_missing(capsys, config, tmp_path):
    settings = ("model.name=embedded", "policy.name=dynts", "memory.max_seqs=2")
    missing = str(tmp_path / "predictor.safetensors")
    message = _refused(capsys, config, *settings, f"model.predictor={missing}")
    assert f"got {missing!r}, and there is no such file; or take" in message
    assert message.endswith("such as expected, rkv, window or full")


def test_a_missing_configuration_file_is_named(capsys, tmp_path):
    assert "absent.yaml" in _refused(capsys, str(tmp_path / "absent.yaml"))


def test_duplicate_ids_are_named_with_their_places(capsys, config, tmp_path):
    with (tmp_path / "problems.jsonl").open("a") as file:
        file.write('{"id": "p2", "question": "again", "answer": "1"}\n')
    message = _refused(capsys, config)
    assert message.startswith("input.id_column 'id' must be unique, got 'p2' in line 3 and line 6")


def test_a_model_that_is_no_causal_lm_is_refused(capsys, config, tmp_path):
    T5Config().save_pretrained(tmp_path / "t5")
    message = _refused(capsys, config, f"model.name={tmp_path / 't5'}")
    assert message.startswith("model.name must be a causal language model, got ")
    assert message.endswith("of type 't5'")


def test_memory_too_small_for_one_sequence_names_both_numbers(capsys, config, tiny_model_dirs):
    message = _refused(
        capsys, config, f"model.name={tiny_model_dirs['llama']}", "memory.kv_gib=0.000001"
    )
    assert "at least one sequence: 16 tokens x 772 bytes = 12352 bytes, got 1073 bytes" in message


def test_a_folder_that_holds_something_else_is_refused(capsys, config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("precious")
    assert "thesis.tex" in _refused(capsys, config)
    assert (tmp_path / "run" / "thesis.tex").read_text() == "precious"


def test_another_run_in_the_directory_is_refused_with_the_differences(capsys, config):
    prepare(load_config(config), is_local=True)
    message = _refused(capsys, config, "sampling.seed=7", "policy.budget=15")
    assert "sampling.seed: 0 there, 7 now" in message
    assert "policy.budget: 16 there, 15 now" in message


def _forget(run_dir: Path, group: str, key: str) -> None:
    """Make it a run directory of a version that did not know the key."""
    fingerprint = json.loads((run_dir / "fingerprint.json").read_text())
    del fingerprint[group][key]
    (run_dir / "fingerprint.json").write_text(json.dumps(fingerprint))
    groups = yaml.safe_load((run_dir / "config.yaml").read_text())
    del groups[group][key]
    (run_dir / "config.yaml").write_text(yaml.safe_dump(groups))


@pytest.mark.parametrize(
    ("group", "key", "other", "shown"),
    [
        ("policy", "quantize", "true", "absent (False) there, 'nvfp4' now"),
        ("sampling", "min_p", "0.1", "absent (0.0) there, 0.1 now"),
        ("grading", "benchmark", "aime", "absent (None) there, 'aime' now"),
        ("input", "prompt_template", "'{prompt}!'", "absent (None) there, '{prompt}!' now"),
    ],
)
def test_a_run_older_than_a_key_had_its_default(capsys, config, tmp_path, group, key, other, shown):
    """Every unfinished run was refused after an upgrade: "policy.quantize:
    absent there, False now"."""
    prepare(load_config(config), is_local=True)
    _forget(tmp_path / "run", group, key)
    assert not prepare(load_config(config), is_local=True).is_new
    message = _refused(capsys, config, f"{group}.{key}={other}")
    assert "holds a run with other settings" in message
    assert f"{group}.{key}: {shown}" in message


def test_a_run_with_a_key_off_its_default_does_not_go_on_at_the_default(capsys, config):
    prepare(load_config(config, ["policy.quantize=true"]), is_local=True)
    assert "policy.quantize: 'nvfp4' there, False now" in _refused(capsys, config)
    assert not prepare(load_config(config, ["policy.quantize=nvfp4"]), is_local=True).is_new


def test_an_option_left_out_is_the_option_at_its_default(capsys, config):
    prepare(load_config(config, ["policy.name=streaming"]), is_local=True)
    same = load_config(config, ["policy.name=streaming", "policy.num_sink_tokens=4"])
    assert not prepare(same, is_local=True).is_new
    message = _refused(capsys, config, "policy.name=streaming", "policy.num_sink_tokens=5")
    assert "policy.options.num_sink_tokens: absent (4) there, 5 now" in message


@pytest.mark.parametrize(
    "overrides",
    [
        ("workers.max=3", "workers.num_cpus=2"),
        ("memory.max_seqs=9", "run.checkpoint_s=3", "run.max_attempts=7"),
        ("cost.usd_per_gpu_hour=3.5",),
        ("model.name=fake:step_s=0.5",),
    ],
)
def test_settings_that_no_row_depends_on_may_change(config, overrides):
    first = prepare(load_config(config), is_local=True)
    again = prepare(load_config(config, overrides), is_local=True)
    assert (first.is_new, again.is_new) == (True, False)


#: As the version before model.think_tags wrote it;
#: the configuration's digest names the folder of that installation.
EMBEDDED_BEFORE = {
    "name": "embedded",
    "revision": None,
    "dtype": "float32",
    "config_sha256": "ecc7bc057bf705169bdda1793e50a8cbab29b674b351a59404c3632db887875a",
    "weights_sha256": "bad36b7dd8d5de8d0e5081293aecc5844e594f736ccd6b4e0e432472bdf58ab8",
    "chat_template_sha256": "8940d6f471c0d58056581eba693974d452bd0ed9da165b8bf7becf78853a1cf7",
    "predictor_sha256": "e96bc4615a67f1fd3eecc422fbfa19c6543d842ee697c4a0a9ed8fcd920cc651",
    "thoughts_sha256": None,
}
THINKV_BEFORE = EMBEDDED_BEFORE | {
    "predictor_sha256": None,
    "thoughts_sha256": "1c5aecf51e0b729f002fc6ea4df56302139736524911c586e9bab585f9d98662",
}


def _change(run_dir: Path, **changes: dict[str, object]) -> None:
    """Make it a run directory of a version that wrote these groups of the fingerprint so."""
    fingerprint = json.loads((run_dir / "fingerprint.json").read_text())
    (run_dir / "fingerprint.json").write_text(json.dumps(fingerprint | changes))


@pytest.mark.parametrize(
    ("policy", "before"), [("dynts", EMBEDDED_BEFORE), ("thinkv", THINKV_BEFORE)]
)
def test_a_run_of_the_embedded_model_goes_on_under_a_newer_version_in_another_folder(
    capsys, config, tmp_path, policy, before
):
    """All were refused after an upgrade that changed no tensor, and in every other clone."""
    settings = ["model.name=embedded", f"policy.name={policy}", "policy.budget=200"]
    prepare(load_config(config, settings), is_local=True)
    today = (tmp_path / "run" / "fingerprint.json").read_text()
    for key in ("weights_sha256", "predictor_sha256", "thoughts_sha256"):
        _change(tmp_path / "run", model=before | {key: "0" * 64})
        assert f"model.{key}: '000" in _refused(capsys, config, *settings)
    _change(tmp_path / "run", model=before)
    for _ in range(2):
        assert not prepare(load_config(config, settings), is_local=True).is_new
    kept = json.loads((tmp_path / "run" / "fingerprint.json").read_text())
    assert kept["model"].items() <= json.loads(today)["model"].items()


def test_true_was_nvfp4(capsys, config, tmp_path):
    run = prepare(load_config(config, ["policy.quantize=true"]), is_local=True)
    _change(tmp_path / "run", policy=run.run_dir.fingerprint()["policy"] | {"quantize": True})
    assert "policy.quantize: 'nvfp4' there, 'fp8' now" in _refused(
        capsys, config, "policy.quantize=fp8"
    )
    assert not prepare(load_config(config, ["policy.quantize=true"]), is_local=True).is_new


@pytest.mark.parametrize(("policy", "meaning"), [("random", "true"), ("expected", "false")])
def test_an_unset_protection_of_the_prompt_is_the_policys_own(config, policy, meaning):
    """So a run goes on if the key is set to what it meant, and runs of before the null go on."""
    settings = [f"policy.name={policy}", "model.predictor=null"]
    assert prepare(load_config(config, settings), is_local=True).is_new
    settings.append(f"policy.protect_prompt={meaning}")
    assert not prepare(load_config(config, settings), is_local=True).is_new


@pytest.mark.parametrize("branch", [None, "main"])
def test_a_run_that_kept_a_branch_takes_its_commit_and_keeps_that(
    capsys, hub_model, config, tmp_path, branch
):
    model = ["model.name=org/model", "model.device=cpu"]
    settings = [*model, f"model.revision={branch or 'null'}"]
    run = prepare(load_config(config, settings), is_local=True)
    before = run.run_dir.fingerprint()["model"] | {"revision": branch}
    _change(tmp_path / "run", model=before)
    there = f"model.revision: {branch!r} there, '{COMMITS[1]}' now"
    assert there in _refused(capsys, config, *model, f"model.revision={COMMITS[1]}")
    assert not prepare(load_config(config, settings), is_local=True).is_new
    (hub_model / "refs" / "main").write_text(COMMITS[1])
    there = f"model.revision: '{COMMITS[0]}' there, '{COMMITS[1]}' now"
    assert there in _refused(capsys, config, *settings)


def test_a_configuration_is_digested_without_its_folder(config, tiny_model_dirs, tmp_path):
    """As it was digested with it goes on too."""
    llama = AutoConfig.from_pretrained(tiny_model_dirs["llama"])
    run = prepare(load_config(config, [f"model.name={tiny_model_dirs['llama']}"]), is_local=True)
    today = run.run_dir.fingerprint()["model"]
    with_folder = hashlib.sha256(llama.to_json_string(use_diff=False).encode()).hexdigest()
    _change(tmp_path / "run", model=today | {"config_sha256": with_folder})
    assert not prepare(run.config, is_local=True).is_new
    assert run.run_dir.fingerprint()["model"] == today
    copy = shutil.copytree(tiny_model_dirs["llama"], tmp_path / "copy")
    elsewhere = check_engine(load_config(config, [f"model.name={copy}"]), on_gpu=False).identity
    assert elsewhere == today | {"name": str(copy)}
    llama.rms_norm_eps *= 2
    llama.save_pretrained(copy)
    changed = check_engine(load_config(config, [f"model.name={copy}"]), on_gpu=False).identity
    assert {key for key in changed if changed[key] != elsewhere[key]} == {"config_sha256"}


def test_changed_data_are_refused(capsys, config, tmp_path):
    prepare(load_config(config), is_local=True)
    write_problems(tmp_path / "problems.jsonl", 5, {3: "another question"})
    assert "input.content" in _refused(capsys, config)


def test_the_fingerprint_identifies_a_model_by_its_content(config, tiny_model_dirs, tmp_path):
    run = prepare(load_config(config, [f"model.name={tiny_model_dirs['llama']}"]), is_local=True)
    model = json.loads((tmp_path / "run" / "fingerprint.json").read_text())["model"]
    assert run.run_dir.fingerprint()["model"] == model
    assert model["chat_template_sha256"] is not None
    assert len(model["config_sha256"]) == 64


def test_the_think_tags_are_in_the_fingerprint_and_older_runs_had_the_usual_ones(
    capsys, config, tiny_model_dirs, tmp_path
):
    model = f"model.name={tiny_model_dirs['llama']}"
    run = prepare(load_config(config, [model]), is_local=True)
    assert run.run_dir.fingerprint()["model"]["think_tags"] == ["<think>", "</think>"]
    _forget(tmp_path / "run", "model", "think_tags")
    same = load_config(config, [model, "model.think_tags=['<think>','</think>']"])
    assert not prepare(same, is_local=True).is_new
    message = _refused(capsys, config, model, "model.think_tags=['[THINK]','[/THINK]']")
    there = "model.think_tags: absent (['<think>', '</think>']) there, ['[THINK]', '[/THINK]'] now"
    assert there in message


def test_a_refused_run_never_imports_ray(tmp_path):
    config = write_config(tmp_path, write_problems(tmp_path / "problems.jsonl", 2))
    code = f"""
import sys
from dynts_batch.runner.reason import reason
assert reason({str(config)!r}, ["run.shard_rows=0"]) == 2
assert "torch" not in sys.modules
assert reason({str(config)!r}, ["input.id_column=answer"]) == 2
assert "ray" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("error: ") == 2


def test_a_run_that_is_driven_is_refused_and_left_as_it_is(capsys, config, monkeypatch):
    """A second driver deleted the files that the first one's workers were writing,
    and spent the same cap again."""
    monkeypatch.setattr(claim_module, "BEAT_S", 0.1)
    prepare(load_config(config), is_local=True)
    run_dir = Path(config).parent / "run"
    (run_dir / "tmp").mkdir(exist_ok=True)
    (run_dir / "tmp" / "half-written").write_bytes(b"rows")
    settings = (run_dir / "config.yaml").read_bytes()
    with RunDir(str(run_dir)).claim():
        assert reason(config, ["cost.usd_per_gpu_hour=7", "workers.max=3"]) == 2
        watching, message = capsys.readouterr().err.splitlines()
        assert "watching for up to 30 s" in watching
        assert "must have one driver at a time, got a second one while process" in message
        assert (run_dir / "tmp" / "half-written").exists()
        assert (run_dir / "config.yaml").read_bytes() == settings
    prepare(load_config(config), is_local=True)
    assert not (run_dir / "tmp" / "half-written").exists()
