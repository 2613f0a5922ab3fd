"""What stands outside the package: shipped configurations load, CI runs the README's command."""

from dataclasses import replace
from pathlib import Path

import pytest

from dynts_batch.config_file import load_config
from dynts_batch.config_rules import validate
from dynts_batch.kvcache.policies import POLICIES, make_policy

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_configuration_loads_with_every_policy(path: Path) -> None:
    config = load_config(str(path))
    for name in POLICIES:
        other = replace(config, policy=replace(config.policy, name=name))
        validate(other)
        make_policy(other.policy)


def test_ci_runs_exactly_the_readmes_test_command() -> None:
    (command,) = [line for line in README.splitlines() if line.endswith("-m pytest")]
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == command


def test_the_page_about_policies_names_every_one() -> None:
    page = (ROOT / "dynts_batch" / "kvcache" / "policies" / "README.md").read_text()
    assert all(f"`{name}`" in page for name in POLICIES)
