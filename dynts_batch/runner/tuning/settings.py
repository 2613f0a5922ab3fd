"""What a tuning is asked for: the terms, the candidates, and the configuration of each;
frozen before the first answer."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dynts_batch.config import Config
from dynts_batch.config_file import load_config
from dynts_batch.data.files.filesystem import extended
from dynts_batch.data.files.storage import Storage
from dynts_batch.data.settings_diff import differences
from dynts_batch.errors import ConfigError, RunDirError
from dynts_batch.report.frontier.points import FULL
from dynts_batch.report.tuning.ladder import Ladder, Terms
from dynts_batch.runner.frontier import Cell
from dynts_batch.runner.shard_actors import absolute

FROZEN = "frozen.json"


@dataclass(frozen=True)
class TuneSettings:
    """`dynts-batch tune`, as it was called."""

    config_path: str
    overrides: tuple[str, ...]
    out: str | None
    """Folder or URI of all that is written; None: beside the run directory."""
    policies: tuple[str, ...]
    """The safest first; none: the configuration's own."""
    budgets: tuple[int, ...] | None
    """In tokens; None: `shares`."""
    shares: tuple[float, ...]
    """In percent of the tokens that the full cache stores at its peak."""
    terms: Terms
    order_seed: int
    max_questions: int | None

    @cached_property
    def base(self) -> Config:
        """The configuration that the candidates share. Raises: ConfigError."""
        return load_config(self.config_path, self.overrides)

    @cached_property
    def folder(self) -> str:
        path = self.out or extended(str(self.base.run.dir), "-tune")
        return absolute(os.path.expanduser(path))

    @cached_property
    def variants(self) -> tuple[str, ...]:
        """The policies. Raises: ConfigError where there is none."""
        named = tuple(dict.fromkeys(self.policies or (self.base.policy.name,)))
        if FULL in named:
            raise ConfigError(
                f"--policies must name what is to be compared with full, got {', '.join(named)}"
            )
        return named

    @property
    def delta(self) -> float:
        """Of a chain: every policy is one."""
        return self.terms.delta / len(self.variants)

    def config(self, policy: str, budget: int | None) -> Config:
        """Of one candidate's run, a shard for each question. Raises: ConfigError."""
        cell = Cell(policy, budget, self.base.sampling.seed)
        questions = [f"run.shard_rows={self.base.sampling.num_samples}", "run.retry_failed=false"]
        return load_config(
            self.config_path, [*self.overrides, *cell.overrides(self.folder), *questions]
        )

    def check(self) -> None:
        """Raises: ConfigError where a number is out of its range,
        or a candidate's settings are wrong."""
        from dynts_batch.kvcache.policies import make_policy

        _check_between("--points", 100 * self.terms.most_loss, 100)
        _check_between("--delta", self.terms.delta, 1)
        if self.max_questions is not None and self.max_questions < 1:
            raise ConfigError(f"--max-questions must be at least 1, got {self.max_questions}")
        for share in self.shares:
            _check_between("--shares", share, 100)
        if (stop_when := self.base.sampling.stop_when) is not None:
            raise ConfigError(
                "a tuning needs sampling.stop_when=null: candidates are compared on the same"
                f" samples, got {stop_when}"
            )
        # Any budget shows whether the settings are wrong, before the full cache has run for hours.
        for budget in self.budgets or (2**30,):
            for policy in self.variants:
                make_policy(self.config(policy, budget).policy)

    def order(self, num_rows: int) -> list[int]:
        """All questions, which are rows of the input,
        in the one order in which everybody answers them."""
        return np.random.default_rng(self.order_seed).permutation(num_rows).tolist()

    def ladder(self, budgets: Sequence[int]) -> Ladder:
        return Ladder.of(self.variants, budgets, self.terms)

    @property
    def is_graded(self) -> bool:
        return self.base.input.reference_column is not None and self.base.grading.kind != "none"

    def frozen(self, data: str, order: Sequence[int]) -> dict[str, Any]:
        """What is promised of `data`, whose questions are answered in `order`.

        Raises: RunDirError where an earlier start into the same folder promised something else.
        """
        frozen = {
            "most_loss": self.terms.most_loss,
            "delta": self.terms.delta,
            "num_chains": len(self.variants),
            "is_graded": self.is_graded,
            "policies": list(self.variants),
            "budgets": None if self.budgets is None else sorted(set(self.budgets), reverse=True),
            "shares": None if self.budgets else sorted(set(self.shares), reverse=True),
            "ladder": "the largest budget first; at one budget, policies in this order",
            "num_rows": len(order),
            "order_seed": self.order_seed,
            "order": hashlib.blake2b(np.array(order).tobytes(), digest_size=16).hexdigest(),
            "data": data,
        }
        stored = Storage(self.folder).read_json(FROZEN)
        if stored is not None and (changed := differences(stored, frozen, {})):
            raise RunDirError(
                f"{self.folder} holds a tuning that promises something else:\n"
                + "\n".join(f"  {line}" for line in changed)
                + "\nTo choose after looking voids a certificate: restore these, or choose another"
                " folder."
            )
        return frozen


def _check_between(name: str, value: float, high: float) -> None:
    if not 0 < value < high:
        raise ConfigError(f"{name} must be above 0 and below {high:g}, got {value:g}")
