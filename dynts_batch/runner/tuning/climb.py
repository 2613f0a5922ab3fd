"""The climb of a ladder: the full cache and the candidates on the same questions,
each as far as the ladder asks for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from rich.console import Console

from dynts_batch.config import Config
from dynts_batch.errors import InputError
from dynts_batch.report.frontier.points import FULL
from dynts_batch.report.tuning.ladder import FIRST_LOOK, Ladder, Rung
from dynts_batch.report.tuning.losses import Disagreement, Loss, graded_loss
from dynts_batch.report.tuning.outcome import Outcome
from dynts_batch.report.tuning.spent import Spent
from dynts_batch.runner.frontier import budgets_of_rows
from dynts_batch.runner.tuning.arm import Arm
from dynts_batch.runner.tuning.settings import TuneSettings


class Climb:
    """The full cache and the candidates on `questions`,
    which are rows of the input in the order in which they are answered."""

    def __init__(
        self, settings: TuneSettings, pilot: list[int], questions: list[int], address: str | None
    ) -> None:
        """`pilot`: questions that only tell how long the full cache's rows become;
        they certify nothing."""
        self._settings, self._pilot, self._questions = settings, pilot, questions
        self._address = address
        self._full = Arm(FULL, settings.config(FULL, None), address)
        self._arms: dict[Rung, Arm] = {}
        self._ladder: Ladder | None = None
        self._losses: dict[Rung, np.ndarray] = {}

    def prepare(self) -> None:
        """Check all that can be checked before Ray starts. Raises:
        ConfigError, InputError, RunDirError."""
        self._full.prepare()
        if self._settings.budgets is not None:
            self._make_ladder(self._settings.budgets)

    def run(self, console: Console) -> int | None:
        """Until all is decided; the exit status where a run was stopped before."""
        if (status := self._full.run(self._pilot, console)) is not None:
            return status
        if self._ladder is None:
            pilot = (row for rows in self._full.rows(self._pilot) for row in rows)
            path = self._full.run_dir.path
            self._make_ladder(budgets_of_rows(self._settings.shares, pilot, path))
        assert self._ladder is not None
        with ExitStack() as stack:
            loss: Loss = graded_loss
            if not self._settings.is_graded:
                loss = stack.enter_context(Disagreement(self._settings.base.grading))
            for rung in self._ladder.rungs:
                self._read(rung, loss)
            while need := self._ladder.next_need(self._losses, len(self._questions)):
                rung, num = need
                for arm in (self._full, self._arms[rung]):
                    if (status := arm.run(self._questions[:num], console)) is not None:
                        return status
                self._read(rung, loss)
        return None

    @property
    def outcome(self) -> Outcome | None:
        """Of what is known; None before there are candidates."""
        if self._ladder is None:
            return None
        full = self._full.rows(self._questions)
        rows = {rung: arm.rows(self._questions) for rung, arm in self._arms.items()}
        spent = Spent.on(self._full.rows(self._pilot)) + Spent.on(full)
        for questions in rows.values():
            spent += Spent.on(questions)
        return Outcome.of(
            self._ladder, self._losses, rows, full,
            num_questions=len(self._questions),
            num_samples=self._settings.base.sampling.num_samples, spent=spent,
        )  # fmt: skip

    @property
    def model(self) -> dict[str, Any]:
        """What identifies the model that was run."""
        return dict(self._full.run_dir.fingerprint("model")["model"])

    def config(self, outcome: Outcome) -> Config:
        """Of the run of the choice: it goes on in its run directory."""
        arm = self._full if outcome.choice is None else self._arms[outcome.choice.rung]
        return arm.config

    def _make_ladder(self, budgets: Sequence[int]) -> None:
        self._ladder = self._settings.ladder(budgets)
        for rung in self._ladder.rungs:
            config = self._settings.config(rung.policy, rung.budget)
            self._arms[rung] = Arm(str(rung), config, self._address)
            self._arms[rung].prepare()

    def _read(self, rung: Rung, loss: Loss) -> None:
        """Take in the losses that are known:
        of the questions that both have answered, up to the first that one has not.

        Raises: InputError where no question can be judged.
        """
        mine = self._arms[rung].rows(self._questions)
        full = self._full.rows(self._questions[: len(mine)])
        known = self._losses.get(rung, np.empty(0))
        both = list(zip(full, mine, strict=False))[len(known) :]
        losses = np.concatenate([known, [loss(*rows) for rows in both]])
        if len(losses) >= FIRST_LOOK and np.isnan(losses).all():
            raise InputError(
                f"input.path must hold questions that can be judged, got {len(losses):,} of which"
                f" none can: see {self._full.run_dir.path}"
            )
        self._losses[rung] = losses
