"""One policy of each kind, for the laws that the engine keeps for whatever a policy asks of it."""

from collections.abc import Iterable
from typing import Any

import pytest

from dynts_batch.config import PolicyConfig
from dynts_batch.kvcache.policies import POLICIES, make_policy

EVICTING = sorted(POLICIES.keys() - {"full"})


def kind(name: str) -> tuple[object, ...]:
    """All that the engine does otherwise for one policy than for another,
    beside asking it which slots stay."""
    policy = make_policy(PolicyConfig(name, budget=64, window_size=8))
    return policy.requires, policy.companions, policy.num_queries, policy.per_head


def one_of_each_kind(names: Iterable[str] = EVICTING) -> list[Any]:
    """`names` as parameters; the second and later ones of a kind are marked `long`."""
    names = list(names)
    first = {kind(name): name for name in reversed(names)}
    return in_short(first.values(), names)


def in_short(short: Iterable[str], names: Iterable[str] = EVICTING) -> list[Any]:
    """`names` as parameters; all but those of `short` are marked `long`."""
    chosen = set(short)
    return [pytest.param(name, marks=[] if name in chosen else pytest.mark.long) for name in names]
