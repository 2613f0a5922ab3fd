"""What stands outside the package: shipped configurations load, CI runs the README's command."""

import re
from pathlib import Path

import pytest

from dynts_batch.config_file import load_config
from dynts_batch.kvcache.policies import POLICIES, make_policy

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: p.name)
def test_every_shipped_configuration_loads_with_every_policy(path: Path) -> None:
    for name in POLICIES:
        make_policy(load_config(str(path), [f"policy.name={name}"]).policy)


def test_ci_runs_exactly_the_readmes_test_command() -> None:
    (command,) = [line for line in README.splitlines() if line.endswith("-m pytest")]
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == command


def test_the_readme_names_every_policy_and_only_files_that_exist() -> None:
    table = README[README.index("## Policies") :]
    assert all(f"`{name}`" in table for name in POLICIES)
    for path in re.findall(r"(?:jobs|configs|dynts_batch)/[\w./]+\.(?:py|yaml)", README):
        assert (ROOT / path).exists(), path
