"""What the README shows is true: its code runs, its commands are understood, its YAML is configuration."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
import yaml

from dynts_batch.cli.main import main
from dynts_batch.config_file import load_config
from dynts_batch.shipped import shipped_configs

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


#: Those of the shell blocks, without what follows a `#` or `>`, and those of the text that have arguments.
COMMANDS = [
    line[line.index("dynts-batch ") :].partition("#")[0].partition(">")[0].strip()
    for block in blocks("bash")
    for line in block.replace("\\\n", " ").splitlines()
    if "dynts-batch " in line
] + [
    span
    for span in re.findall(r"`(dynts-batch [^`]+)`", README)
    if len(span.split()) > 2 and "..." not in span
]


@pytest.mark.parametrize("command", dict.fromkeys(COMMANDS))
def test_a_command_is_understood(command, monkeypatch):
    """Its options and keys exist. What stands for a file of the reader's own is one that has all keys."""

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


def test_the_library_example_solves_its_problems(capsys):
    example, *_ = blocks("python")
    exec(example, {})
    printed = capsys.readouterr().out
    boxed = re.findall(r"\\boxed\{\d+\}", printed)
    assert sorted(boxed) == [r"\boxed{29}", r"\boxed{5}"]
    assert all(f"`{answer}`" in README for answer in boxed)


def test_the_yaml_is_configuration(tmp_path):
    whole = yaml.safe_load(shipped_configs()["quickstart"].read_text())
    for block in blocks("yaml"):
        part = yaml.safe_load(block)
        merged = whole | {group: whole.get(group, {}) | keys for group, keys in part.items()}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(merged))
        load_config(str(tmp_path / "config.yaml"))


def test_every_block_is_of_a_kind_that_is_tested():
    """The guide to a new method is the second Python block: tests/kvcache/test_policies.py follows it."""
    assert set(re.findall(r"^```(\w*)$", README, flags=re.MULTILINE)) == {
        "",
        "bash",
        "python",
        "yaml",
    }
    assert len(blocks("python")) == 2
