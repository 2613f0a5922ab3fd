"""Laws of a run's chats: what the settings say reaches every prompt, is part of the fingerprint,
and holds for a resume."""

import json
import shutil
from datetime import date
from pathlib import Path

import pytest
from fake_run import write_config, write_problems
from transformers import AutoTokenizer

from dynts_batch.config_file import load_config
from dynts_batch.engine.model.chat import template as chat_template
from dynts_batch.errors import ConfigError, FingerprintError
from dynts_batch.lab.tokenizer import CHAT_TEMPLATE
from dynts_batch.runner.prepared_run import PreparedRun, prepare

DATED = "{{ strftime_now('%Y-%m-%d') }}" + CHAT_TEMPLATE
SWITCH = CHAT_TEMPLATE + "{{ effort }}"


@pytest.fixture
def config(tmp_path: Path) -> str:
    return str(write_config(tmp_path, write_problems(tmp_path / "problems.jsonl", 3)))


def prepared(config: str, *overrides: str) -> PreparedRun:
    common = ["model.name=embedded", "model.device=cpu", "policy.name=full"]
    return prepare(load_config(config, [*common, *overrides]), is_local=True)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("model.chat_template_kwargs={effort: high}", "model.chat_template_kwargs"),
        ("input.system_prompt=Be brief.", "input.system_prompt"),
        ("model.chat_template=" + repr(SWITCH + "!"), "chat_template"),
    ],
)
def test_what_the_model_reads_is_part_of_the_fingerprint(
    setting: str, named: str, config: str, tmp_path: Path
) -> None:
    file = tmp_path / "switch.jinja"
    file.write_text(SWITCH)
    prepared(config, f"model.chat_template={file}")
    prepared(config, f"model.chat_template={file}")
    with pytest.raises(FingerprintError, match=named):
        prepared(config, f"model.chat_template={file}", setting)


def test_workers_are_given_the_template_itself_whose_file_they_need_not_have(
    config: str, tmp_path: Path
) -> None:
    file = tmp_path / "switch.jinja"
    file.write_text(SWITCH)
    assert prepared(config, f"model.chat_template={file}").config.model.chat_template == SWITCH


def test_a_template_that_writes_todays_date_writes_that_of_the_runs_first_day(
    config: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gpt-oss tells the model the date: a resume after midnight rendered other prompts."""

    class Tomorrow(date):
        @classmethod
        def today(cls) -> date:
            return date(2031, 1, 2)

    file = Path(config).with_name("dated.jinja")
    file.write_text(DATED)
    first = prepared(config, f"model.chat_template={file}")
    monkeypatch.setattr(chat_template, "date", Tomorrow)
    again = prepared(config, f"model.chat_template={file}")
    assert again.config.model.chat_date == first.config.model.chat_date
    assert again.config.model.chat_date != "2031-01-02"
    other_run = prepared(config, f"model.chat_template={file}", f"run.dir={config}.other")
    assert other_run.config.model.chat_date == "2031-01-02"
    with pytest.raises(ConfigError, match=r"model\.chat_date must be a day"):
        prepared(config, "model.chat_date=tomorrow")


def test_chats_for_a_model_without_a_chat_template_are_refused(
    config: str, tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    """Every row became an error row, after the model had been loaded."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_model_dirs["llama"], folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = None
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    bare = f"model.name={folder}"
    chats = tmp_path / "chats.jsonl"
    chats.write_text(json.dumps({"id": "a", "messages": [{"role": "user", "content": "Hi"}]}))
    columns = ("input.prompt_column=null", "input.messages_column=messages")
    with pytest.raises(ConfigError, match=r"input\.messages_column needs a chat template"):
        prepared(config, bare, f"input.path={chats}", *columns)
    with pytest.raises(ConfigError, match=r"input\.system_prompt needs a chat template"):
        prepared(config, bare, "input.system_prompt=Be brief.")
    prepared(config, bare, f"model.chat_template={CHAT_TEMPLATE!r}", "input.system_prompt=Hi")


def test_a_system_prompt_that_the_template_drops_is_refused(config: str) -> None:
    only_users = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    file = Path(config).with_name("users.jinja")
    file.write_text(only_users)
    with pytest.raises(ConfigError, match=r"input\.system_prompt: .* drops"):
        prepared(config, f"model.chat_template={file}", "input.system_prompt=Be brief.")
