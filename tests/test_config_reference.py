"""The page of all keys is complete, and is what its command prints."""

import dataclasses
import re
from pathlib import Path

import pytest

from dynts_batch import config
from dynts_batch.config import Config
from dynts_batch.config_reference import Key, groups, keys_of, page
from dynts_batch.kvcache.policies import POLICIES

CONFIGS = Path(__file__).parents[1] / "configs"


def test_the_page_beside_the_configurations_is_the_one_of_this_version():
    """If not: dynts-batch config --keys > configs/README.md"""
    assert (CONFIGS / "README.md").read_text() == page(POLICIES)


def test_the_page_has_every_key_that_a_configuration_may_have():
    printed = set(re.findall(r"`(\w+\.\w+)`", page(POLICIES)))
    for group in dataclasses.fields(Config):
        keys = dataclasses.fields(getattr(config, group.type))
        assert {f"{group.name}.{key.name}" for key in keys} - {"policy.options"} <= printed
    for policy in POLICIES.values():
        assert {f"policy.{key.name}" for key in dataclasses.fields(policy)} <= printed


OF_POLICIES = {
    key.name: key
    for policy in POLICIES.values()
    for base in policy.__mro__
    if dataclasses.is_dataclass(base)
    for key in keys_of(base)
}
KEYS = {f"{group}.{key.name}": key for group, keys in groups().items() for key in keys}


@pytest.mark.parametrize("key", (KEYS | OF_POLICIES).values(), ids=(KEYS | OF_POLICIES).keys())
def test_every_key_says_what_it_means(key):
    """GitHub takes a bare <think> for HTML, and shows nothing."""
    assert key.meaning.endswith("."), f"{key.name} needs a docstring of sentences"
    assert "<" not in re.sub(r"`[^`]*`", "", key.meaning)


def test_a_key_without_a_docstring_is_seen():
    @dataclasses.dataclass
    class Sparse:
        told: int = 1
        """Is told."""
        untold: str | None = None
        kind: bool = True
        """Is told too."""

    assert keys_of(Sparse) == [
        Key("told", "int", "1", "Is told."),
        Key("untold", "str | None", "None", ""),
        Key("kind", "bool", "True", "Is told too."),
    ]
