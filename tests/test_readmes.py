"""What the READMEs show is true: code runs, commands are understood,
and all that is named exists."""

import argparse
import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import yaml

from dynts_batch import config
from dynts_batch.cli.commands import COMMANDS
from dynts_batch.cli.main import main
from dynts_batch.config import Config
from dynts_batch.config_file import load_config
from dynts_batch.kvcache.policies import POLICIES
from dynts_batch.shipped import shipped_configs

ROOT = Path(__file__).parents[1]
PAGES = {
    page.relative_to(ROOT).as_posix(): page.read_text()
    for page in (ROOT, *(f for f in ROOT.iterdir() if f.is_dir() and f.name[0] != "."))
    for page in ([page / "README.md"] if page == ROOT else sorted(page.rglob("README.md")))
}
README = PAGES["README.md"]


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def spans(text: str) -> list[str]:
    """What stands between backticks, outside blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))


def commands(text: str) -> list[str]:
    """Those of the shell blocks, without what follows a `#` or `>`,
    and those of the text that have arguments."""
    lines = [
        line[line.index("dynts-batch ") :].partition("#")[0].partition(">")[0].strip()
        for block in blocks("bash", text)
        for line in block.replace("\\\n", " ").splitlines()
        if "dynts-batch " in line
    ]
    told = [span for span in spans(text) if span.startswith("dynts-batch ")]
    told = [span.partition(" > ")[0] for span in told if "..." not in span]
    return lines + [span for span in told if len(span.split()) > 2]


def test_the_first_page_is_read_to_its_end():
    assert len(README.splitlines()) <= 130


@pytest.mark.parametrize(
    "command", dict.fromkeys(command for page in PAGES.values() for command in commands(page))
)
def test_a_command_is_understood(command, monkeypatch):
    """Its options and keys exist. What stands for a file of the reader's
    own is one that has all keys."""

    class UnderstoodError(Exception):
        """Instead of doing it."""

    def stop_after(parse):
        def parse_and_stop(self, arguments=None, namespace=None):
            args = parse(self, arguments, namespace)
            if self.prog != "dynts-batch":
                raise UnderstoodError(args)
            return args

        return parse_and_stop

    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)
        monkeypatch.setattr(argparse.ArgumentParser, name, stop_after(parse))
    words = shlex.split(command)[1:]
    with pytest.raises(UnderstoodError) as understood:
        main(words)
    args = understood.value.args[0]
    if hasattr(args, "config"):
        own = {"CONFIG": "hub-model", "my-run.yaml": "hub-model"}
        load_config(own.get(args.config, args.config), args.overrides)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_that_is_named_exists(page):
    """Links, and names in backticks with a folder or a suffix;
    in capitals, or in runs/ and build/, it is the reader's."""
    links = re.findall(r"\]\(([^)#\s]+)\)", PAGES[page])
    named = [s for s in spans(PAGES[page]) if re.fullmatch(r"[\w./-]+(/|\.(py|sh|md|yaml|txt))", s)]
    theirs = re.compile(r"(runs|build|rows)/|[A-Z_]+/|https?:|my[_-]|/|.*=")
    names = [name for name in (*links, *named) if not theirs.match(name)]
    folder = (ROOT / page).parent
    near = (folder, ROOT, ROOT / "dynts_batch")
    assert not [name for name in names if not any((place / name).exists() for place in near)]


@pytest.mark.parametrize("page", PAGES)
def test_every_key_and_subcommand_that_is_named_exists(page):
    keys = {
        f"{group.name}.{key.name}"
        for group in dataclasses.fields(Config)
        for key in dataclasses.fields(getattr(config, group.type))
    }
    keys |= {f"policy.{f.name}" for policy in POLICIES.values() for f in dataclasses.fields(policy)}
    groups = "|".join(group.name for group in dataclasses.fields(Config))
    found = (re.match(rf"(({groups})\.\w+)(=|$)", span) for span in spans(PAGES[page]))
    named = {key[1] for key in found if key and not key[1].endswith((".py", ".yaml"))}
    assert named <= keys
    assert set(re.findall(r"`dynts-batch ([a-z-]+)", PAGES[page])) <= set(COMMANDS)


def test_the_library_example_solves_its_problem(capsys):
    (example,) = blocks("python", README)
    exec(example, {})
    (boxed,) = re.findall(r"\\boxed\{\d+\}", capsys.readouterr().out)
    assert boxed in example


@pytest.mark.parametrize("page", PAGES)
def test_the_yaml_is_configuration(page, tmp_path):
    whole = yaml.safe_load(shipped_configs()["quickstart"].read_text())
    for block in blocks("yaml", PAGES[page]):
        part = yaml.safe_load(block)
        merged = whole | {group: whole.get(group, {}) | keys for group, keys in part.items()}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(merged))
        load_config(str(tmp_path / "config.yaml"))


def test_every_block_is_of_a_kind_that_is_tested():
    """tests/kvcache/test_policies.py follows the guide to a new policy,
    the only other Python block."""
    for page in PAGES.values():
        assert set(re.findall(r"^```(\w+)$", page, flags=re.MULTILINE)) <= {
            "bash",
            "python",
            "yaml",
        }
    with_python = [page for page, text in PAGES.items() if blocks("python", text)]
    assert with_python == ["README.md", "dynts_batch/kvcache/policies/README.md"]
