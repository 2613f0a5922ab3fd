"""The benchmark's own honesty: every contender generates the same tokens, all that it claims,
from the same prompts."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dynts_batch.benchmarks import cpu_suite, gpu_suite, study
from dynts_batch.benchmarks.breakdown import breakdown
from dynts_batch.benchmarks.contenders.contenders import (
    FOLDERS,
    PEERS,
    make_contender,
    make_engine,
    named_policy,
)
from dynts_batch.benchmarks.growth import growth
from dynts_batch.benchmarks.loads import LOADS, equal_memory, ragged
from dynts_batch.benchmarks.measure import check_lengths, measure, ratios
from dynts_batch.benchmarks.roofline import roofline
from dynts_batch.benchmarks.suite import run_checks
from dynts_batch.benchmarks.workload import Load, Workload
from dynts_batch.cli.bench import parse
from dynts_batch.config_file import load_config, load_settings
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.policies import make_policy
from dynts_batch.runner.frontier import plan_cells

#: Its vocabulary holds all 714 ids of the tokenizer: quantised keys are measured over a text.
TINY = Workload(
    batch_size=3, prompt_tokens=8, max_new_tokens=24, budget=64, window_size=8,
    hidden_size=64, intermediate_size=96, num_layers=2, num_heads=4, num_kv_heads=2, vocab_size=720,
)  # fmt: skip
#: Prompts and completions of different lengths, more than one batch.
RAGGED = Load([[5, 6, 7], [8] * 9, [9, 10], [11] * 4, [12]], [4, 24, 11, 1, 7], batch_size=2)


@pytest.mark.parametrize("load", [TINY.load(), RAGGED], ids=["equal", "ragged"])
def test_all_contenders_generate_the_same_tokens_where_nothing_is_evicted(load: Load) -> None:
    names = ("hf-generate", "hf-static", "hf-continuous", "full", "dynts")
    completions = [make_contender(name, TINY, load)(load).completions for name in names]
    check_lengths(completions[0], load)
    assert all(completion == completions[0] for completion in completions[1:])


def test_rounds_alternate_and_ratios_are_within_a_round() -> None:
    loads = LOADS["equal-batch"](["full", "window"], TINY)
    contenders = {name: make_contender(name, TINY, load) for name, load in loads.items()}
    rows = measure(contenders, loads, rounds=2)
    assert [(row["round"], row["contender"]) for row in rows] == [
        (0, "full"), (0, "window"), (1, "full"), (1, "window"),
    ]  # fmt: skip
    assert all(row["tokens"] == 3 * 24 and row["tokens_per_s"] > 0 for row in rows)
    assert ratios(rows, "full", "full", "tokens_per_cpu_s") == [1.0, 1.0]


def test_at_equal_memory_each_has_its_own_largest_batch() -> None:
    longer = replace(
        TINY, max_new_tokens=120, kv_gib=1.1 * 128 * 2 * TINY.kv_bytes_per_token / 2**30
    )
    peers = ["hf-generate", "openvino", "openvino-evicting"]
    loads = equal_memory([*peers, "window", "window+quantize=true"], longer)
    # A head has 16 numbers of 4 bytes, or for OpenVINO of one, and 8 bytes beside them.
    assert [loads[name].batch_size for name in peers] == [2, 5, 7]
    assert loads["window"].batch_size == 4
    assert loads["window+quantize=true"].batch_size > 8
    assert loads["hf-generate"].prompts == loads["window"].prompts
    with pytest.raises(ConfigError, match=r"kv_gib \(1e-06\) must hold one sequence"):
        equal_memory(["window"], replace(TINY, kv_gib=1e-6))


def test_the_ragged_load_has_the_embedded_models_lengths() -> None:
    load = ragged(["full"], Workload(batch_size=4, num_requests=3, max_new_tokens=40))["full"]
    assert len(load.prompts) == len(load.num_new_tokens) == 3
    assert all(0 < n <= 40 for n in load.num_new_tokens)


def test_a_real_models_load_has_its_own_lengths_and_contenders_keep_to_them(
    tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    problems = tmp_path / "problems.jsonl"
    problems.write_text("".join(f'{{"question": "What is {n} + {n}?"}}\n' for n in range(5)))
    real = replace(
        TINY, model=str(tiny_model_dirs["qwen2"]), problems=str(problems), num_requests=4
    )
    names = ["hf-generate", "full"]
    load = ragged(names, real)["full"]
    assert len(load.prompts) == 4
    assert load.prompts[0] != load.prompts[1]
    found = [make_contender(name, real, load)(load).completions for name in names]
    check_lengths(found[0], load)
    assert found[0] == found[1]
    own = make_engine(real, "full", load)._model.tokenizer
    assert own.name_or_path == real.model, "a real model's own tokens are no other tokenizer's"


@pytest.mark.parametrize("name", ["window", "hf-generate"])
def test_growth_covers_the_positions_in_whole_eviction_cycles(name: str) -> None:
    rows = growth(name, replace(TINY, max_new_tokens=300))
    cycle = TINY.budget - TINY.retained_len
    assert [(row["position"] - TINY.prompt_tokens) % cycle for row in rows] == [0]
    assert rows[0]["step_s"] > 0


def test_a_contender_that_cannot_run_is_refused(tiny_model_dirs: dict[str, Path]) -> None:
    load = TINY.load()
    with pytest.raises(ConfigError, match=r"a contender must be one of .*kvpress.*got 'sglang'"):
        make_contender("sglang", TINY, load)
    with pytest.raises(ConfigError, match="needs --python kvpress=PATH"):
        make_contender("kvpress", TINY, load)
    for name in FOLDERS:
        with pytest.raises(ConfigError, match=f"contender {re.escape(name)} needs --model"):
            make_contender(name, TINY, load)
        engine = re.split(r"[-+]", name)[0]
        with pytest.raises(ConfigError, match=f"needs --python {engine}=PATH"):
            make_contender(name, replace(TINY, model=str(tiny_model_dirs["qwen2"])), load)
    with pytest.raises(ConfigError, match="ended with status 1"):
        make_contender("kvpress", TINY, load, {"kvpress": sys.executable})


def test_the_parts_of_the_breakdown_are_the_whole_and_its_timers_go() -> None:
    rows = breakdown("dynts", replace(TINY, max_new_tokens=100))
    parts = {row["part"]: row["share"] for row in rows}
    assert sum(parts.values()) == pytest.approx(1)
    wanted = {"forward", "attention", "recording", "sample", "select", "evict", "bookkeeping"}
    assert parts.keys() == wanted
    assert min(parts.values()) > 0
    assert KVArena.evict.__qualname__ == "KVArena.evict"


@pytest.mark.parametrize(
    "name", ["window", pytest.param("window+quantize=true", marks=pytest.mark.long)]
)
def test_no_step_is_faster_than_its_bytes_or_operations(name: str) -> None:
    rows = {row["what"]: row["step_over_it"] for row in roofline(name, TINY)}
    assert rows["step"] == 1
    assert rows["bytes, at copy bandwidth"] > 1
    assert rows["operations, at product speed"] > 1
    assert rows["own attention alone"] > rows["products and attention"] > 1


@pytest.mark.parametrize("checks", [cpu_suite.CHECKS, gpu_suite.CHECKS], ids=["cpu", "gpu"])
def test_a_suite_asks_for_what_there_is(checks: dict[str, list[str]]) -> None:
    """Too long to run, but its commands can be read:
    keys, modes, contenders, and a budget that can evict."""
    root = Path(__file__).parents[2]
    for _, module, *arguments in checks.values():
        if module == "pytest":
            assert all((root / path).exists() for path in arguments[1:])
            continue
        assert (module, arguments[0]) == ("dynts_batch", "bench")
        args = parse(arguments[1:])
        workload = load_settings(Workload, args.overrides)
        ours = [name for name in args.contenders.split(",") if name not in PEERS]
        assert all(named_policy(name, workload).budget == workload.budget for name in ours)
        assert workload.prompt_tokens < workload.retained_len < workload.budget


def test_a_suite_says_what_failed_and_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    checks = {"works": ["-c", "print(6 * 7)"], "breaks": ["-c", "raise SystemExit(3)"]}
    assert run_checks(checks, at_once=2) == 1
    printed = capsys.readouterr().out
    assert "== works\n$ python -c print(6 * 7)\n42\n" in printed
    assert printed.endswith("failed:\n  breaks\n")


def test_every_cell_of_the_study_has_settings_that_are_right(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(study.settings_of("a/model", tmp_path / "x.jsonl", 5))
    for cell in plan_cells(study.VARIANTS, [140], [0]):
        config = load_config(str(tmp_path / "study.yaml"), cell.overrides(str(tmp_path)))
        assert make_policy(config.policy).name == cell.variant.partition("+")[0]
        assert (config.input.limit, config.sampling.temperature) == (5, 0.0)
    assert config.input.prompt_template.endswith("within \\boxed{}.")
