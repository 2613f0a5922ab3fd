"""Laws of the configuration: every mistake is named, and what is accepted round-trips."""

import dataclasses
import io
import json
import pickle
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dynts_batch.config import Config, PolicyConfig
from dynts_batch.config_file import load_config, to_yaml
from dynts_batch.config_rules import validate
from dynts_batch.errors import ConfigError

_STOP = ("sampling.stop_when=right", "sampling.num_samples=16")
MINIMAL = """
input: {path: problems.jsonl, prompt_column: question}
policy: {name: dynts, budget: 512}
run: {dir: out}
"""


@pytest.fixture
def minimal(tmp_path: Path) -> str:
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return str(path)


def _error(path: str, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_defaults_fill_what_the_file_leaves_out(minimal):
    config = load_config(minimal)
    assert config.model.name == "embedded"
    assert config.sampling.max_new_tokens == 16384
    assert config.policy == PolicyConfig(budget=512)


def test_overrides_win_over_the_file_and_later_ones_over_earlier(minimal):
    config = load_config(minimal, ["policy.budget=600", "policy.budget=700", "sampling.seed=1"])
    assert (config.policy.budget, config.sampling.seed) == (700, 1)


@pytest.mark.parametrize("value", ["true", "false", "nvfp4", "fp8"])
def test_how_keys_are_stored_is_a_switch_or_a_name_and_survives_a_round_trip(minimal, value):
    config = load_config(minimal, [f"policy.quantize={value}"])
    assert config.policy.quantize == {"true": "nvfp4", "false": False}.get(value, value)
    assert load_config(io.StringIO(to_yaml(config))) == config


TEMPLATE = "{prompt}\n\nReason step by step, and put ${x}$ or {} within \\boxed{}. Again: {prompt}"


def test_a_prompt_template_reads_the_same_in_a_block_of_yaml_quoted_and_after_a_round_trip(
    tmp_path,
):
    """LaTeX has braces and dollars of its own;
    an interpolation is escaped as OmegaConf wants it."""
    written = TEMPLATE.replace("${", r"\${")
    path = tmp_path / "c.yaml"
    block = "".join(f"      {line}\n" for line in written.split("\n"))
    keys = "input:\n  path: p\n  prompt_column: q\n  prompt_template: |-\n"
    path.write_text(f"{keys}{block}run: {{dir: out}}\n")
    config = load_config(str(path))
    assert config.input.prompt_template == TEMPLATE
    assert load_config(io.StringIO(to_yaml(config))) == config
    quoted = json.dumps(written)
    assert load_config(str(path), [f"input.prompt_template={quoted}"]) == config


def test_a_configuration_is_frozen_plain_and_picklable(minimal):
    config = load_config(minimal)
    assert type(config.policy.options) is dict
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.policy.budget = 1


def test_other_keys_of_policy_become_its_options_in_yaml_and_overrides(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL.replace("budget: 512", "budget: 512, num_sink_tokens: 4"))
    config = load_config(str(path), ["policy.pooling=max", "policy.lambdas=[0.1, 2]"])
    assert config.policy.options == {"num_sink_tokens": 4, "pooling": "max", "lambdas": [0.1, 2]}


def test_a_group_without_keys_is_empty(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(MINIMAL + "memory:\n")
    assert load_config(str(path)).memory == Config().memory


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("polcy.name=full", "unknown config key polcy. Did you mean policy? Choices: model, input"),
        ("run.shard_row=3", "unknown config key run.shard_row. Did you mean shard_rows? Choices"),
        (
            "input.format=xml",
            "input.format must be one of auto, parquet, arrow, jsonl, csv, openai, got 'xm",
        ),
        ("policy.budget=5.5", "policy.budget must be an integer or null, got 5.5"),
        ("policy.budget=true", "policy.budget must be an integer or null, got True"),
        ("policy.budget=[1]", "policy.budget must be an integer or null, got [1]"),
        ("policy.name=null", "policy.name must be text, got None"),
        ("run.retry_failed=maybe", "run.retry_failed must be true or false, got 'maybe'"),
        ("workers.num_gpus=some", "workers.num_gpus must be a number or null, got 'some'"),
        ("run.dir.deeper=1", "run.dir must be text or null, got {'deeper': 1}"),
        (
            "model=tiny",
            "model must hold keys (name, revision, dtype, weights, device, predictor, thoughts,"
            " think_tags, tokenizer, chat_template, chat_template_kwargs, chat_date,"
            " trust_remote_code), got",
        ),
        (
            "model.chat_template_kwargs=abc",
            "model.chat_template_kwargs must be keys with values or null, got 'abc'",
        ),
        ("model.think_tags=abc", "model.think_tags must be a list of text or null, got 'abc'"),
        ("policy.budget", "an override must be key=value, got 'policy.budget'"),
        ("=3", "an override must be key=value, got '=3'"),
        ("policy.budget=[1", "cannot read policy.budget=[1: while parsing"),
        ("model.revision=???", "cannot read model.revision: Missing mandatory value"),
        (
            "run.dir=${nowhere}",
            r"cannot read run.dir: Interpolation key 'nowhere' not found. For ${ ",
        ),
    ],
)
def test_an_unknown_key_or_a_wrong_type_is_named_with_the_choices(minimal, override, message):
    assert _error(minimal, override).startswith(message)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("{prompt}", "{prompt}"),
        ("Question: {prompt}", "Question: {prompt}"),
        ("{prompt} Write #### before the number", "{prompt} Write #### before the number"),
        ("# Problem\n\n{prompt}\n  - think", "# Problem\n\n{prompt}\n  - think"),
        (r"{prompt} in \boxed{}", r"{prompt} in \boxed{}"),
        (r'"{prompt}\n\\boxed{}"', "{prompt}\n\\boxed{}"),
        ("'{prompt}: it''s'", "{prompt}: it's"),
        ('"{prompt}" # Think', '"{prompt}" # Think'),
        ('"{prompt}" is the "question"', '"{prompt}" is the "question"'),
        ("'Tis this: {prompt}", "'Tis this: {prompt}"),
        (r"{prompt} costs \${5}", "{prompt} costs ${5}"),
        ("null", None),
        ("", None),
    ],
)
def test_an_override_of_a_text_key_is_the_text_itself(minimal, value, text):
    assert load_config(minimal, [f"input.prompt_template={value}"]).input.prompt_template == text


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["input.path=null"], "input.path is required"),
        (["input.prompt_column=null"], "input.prompt_column or input.messages_column is required"),
        (["input.messages_column=chat"], "input.prompt_column and input.messages_column exclude"),
        (
            ["input.prompt_template=Think."],
            "input.prompt_template must hold {prompt}, where the prompt goes, got 'Think.'",
        ),
        (
            ["input.prompt_template='{prompt}'", "input.prompt_column=null", "input.format=openai"],
            "input.prompt_template needs input.prompt_column, since messages are rendered as they",
        ),
        (["model.think_tags=[a]"], "model.think_tags must be two different texts, without white"),
        (["model.think_tags=[a, a]"], "model.think_tags must be two different texts"),
        (["model.think_tags=[a, ' b']"], "model.think_tags must be two different texts"),
        (["model.think_tags=[a, '']"], "model.think_tags must be two different texts"),
        (["input.limit=0"], "input.limit must be at least 1, got 0"),
        (["run.dir=null"], "run.dir is required"),
        (["run.shard_rows=0"], "run.shard_rows must be at least 1, got 0"),
        (["run.checkpoint_s=0"], "run.checkpoint_s must be above 0, got 0.0"),
        (["run.max_attempts=0"], "run.max_attempts must be at least 1, got 0"),
        (["sampling.temperature=-0.1"], "sampling.temperature must be at least 0, got -0.1"),
        (["sampling.temperature=.inf"], "sampling.temperature must be at least 0, got inf"),
        (["sampling.top_p=0"], "sampling.top_p must be in (0, 1], got 0.0"),
        (["sampling.min_p=1.5"], "sampling.min_p must be in [0, 1], got 1.5"),
        (["sampling.top_k=-1"], "sampling.top_k must be at least 0, got -1"),
        (["sampling.seed=-1"], "sampling.seed must be in [0, 2**63), got -1"),
        (["sampling.num_samples=0"], "sampling.num_samples must be at least 1, got 0"),
        (
            ["sampling.num_samples=2", "sampling.temperature=0"],
            "sampling.num_samples must be 1 whe",
        ),
        (
            ["sampling.stop_confidence=1", *_STOP],
            "sampling.stop_confidence must be in [0.5, 1), got 1.0",
        ),
        (["sampling.stop_window=0", *_STOP], "sampling.stop_window must be at least 1, got 0"),
        (
            ["sampling.stop_when=agreed"],
            "sampling.stop_when=agreed needs sampling.num_samples, the most, above 1, got 1",
        ),
        (
            ["sampling.stop_when=agreed", "sampling.temperature=0"],
            "sampling.stop_when=agreed needs sampling.num_samples, the most, above 1, and"
            " sampling.temperature above 0",
        ),
        (
            [*_STOP, "run.shard_rows=20"],
            "run.shard_rows must be a multiple of sampling.num_samples (16) for"
            " sampling.stop_when=right, since",
        ),
        (_STOP, "sampling.stop_when=right needs input.reference_column, the right answers"),
        (
            [*_STOP, "input.reference_column=answer", "grading.kind=none"],
            "sampling.stop_when=right needs answers that are graded, got grading.kind=none",
        ),
        (["sampling.max_new_tokens=0"], "sampling.max_new_tokens must be at least 1, got 0"),
        (["memory.kv_gib=0"], "memory.kv_gib must be above 0, got 0.0"),
        (["memory.max_seqs=0"], "memory.max_seqs must be at least 1, got 0"),
        (["memory.max_prompt_tokens=0"], "memory.max_prompt_tokens must be at least 1, got 0"),
        (["workers.min=0"], "workers.min must be at least 1, got 0"),
        (["workers.min=3", "workers.max=2"], "workers.max must be at least workers.min (3), got 2"),
        (["workers.num_gpus=-1"], "workers.num_gpus must be at least 0, got -1.0"),
        (["run.stall_s=0"], "run.stall_s must be above 0, got 0.0"),
        (["run.max_hours=0"], "run.max_hours must be above 0, got 0.0"),
        (
            ["run.max_cost_usd=0", "cost.usd_per_gpu_hour=1"],
            "run.max_cost_usd must be above 0, got 0.0",
        ),
        (["run.max_cost_usd=5"], "run.max_cost_usd needs a price: set cost.usd_per_gpu_hour or"),
        (
            ["input.format=openai"],
            "input.prompt_column must be null where input.format is openai, since the format says",
        ),
        (["run.dir=s3://me:hush@bucket/run"], "run.dir must not hold credentials, since"),
        (["input.path=https://host/d.jsonl?sig=hush"], "input.path must not hold credentials"),
        (["grading.timeout_s=0"], "grading.timeout_s must be above 0, got 0.0"),
        (["cost.usd_per_kwh=-1"], "cost.usd_per_kwh must be at least 0, got -1.0"),
    ],
)
def test_a_broken_rule_names_the_key_the_rule_and_the_value(minimal, overrides, message):
    assert _error(minimal, *overrides).startswith(message)


def test_the_rules_of_policy_are_its_classs_own(minimal):
    overrides = ["policy.budget=1", "policy.window_size=100000"]
    assert load_config(minimal, overrides).policy.budget == 1


@pytest.mark.parametrize(
    "content", [b"- 1\n", b"3\n", b"a: [\n", b"run: {dir: a}\nrun: {dir: b}\n", b"\xff\xfe\x00"]
)
def test_a_file_that_is_no_mapping_is_refused(tmp_path, content):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"c\.yaml"):
        load_config(str(path))


def test_a_missing_file_is_named(tmp_path):
    assert "nothing.yaml" in _error(str(tmp_path / "nothing.yaml"))


def test_a_config_built_in_python_obeys_the_same_rules():
    with pytest.raises(ConfigError, match=r"input\.path is required"):
        validate(Config())


_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp")), min_size=1)
_SCALAR = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | _TEXT
_OPTIONS = st.dictionaries(
    st.from_regex(r"[a-z_]{3,12}", fullmatch=True).filter(
        lambda key: key not in {field.name for field in dataclasses.fields(PolicyConfig)}
    ),
    _SCALAR.filter(lambda value: value == value and value != "???"),
    max_size=3,
)


@settings(max_examples=30)
@example(text="${x}", temperature=0.0, keep_ratio=1.0, options={"a": "\\${y}", "b": ["${z"]})
@example(text="a\\${x} ${", temperature=1e-9, keep_ratio=0.3, options={"a": {"b": "null"}})
@example(text="\\\\${x}", temperature=0.6, keep_ratio=0.3, options={"a": 1e20, "b": "1e3"})
@given(
    text=_TEXT.filter(lambda text: text != "???"),
    temperature=st.floats(0, 5),
    keep_ratio=st.floats(0, 1, exclude_min=True),
    options=_OPTIONS,
)
def test_yaml_round_trips_every_config(tmp_path_factory, text, temperature, keep_ratio, options):
    path = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    path.write_text(MINIMAL)
    config = load_config(str(path))
    config = dataclasses.replace(
        config,
        run=dataclasses.replace(config.run, dir=text),
        sampling=dataclasses.replace(config.sampling, temperature=temperature),
        policy=dataclasses.replace(config.policy, keep_ratio=keep_ratio, options=options),
    )
    path.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(str(path)) == config
