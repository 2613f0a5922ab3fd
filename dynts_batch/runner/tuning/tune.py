"""`dynts-batch tune`: the cheapest policy and budget that loses less than so much, each candidate run no further than needed.

DIR/frozen.json        what is promised, of which candidates and data; written before the first answer
DIR/cells/full-s0/     a run directory each, of which the questions needed are done: the same command goes on
DIR/certificate.json   what was found
DIR/tuned.yaml         the configuration to run; it goes on in the run directory of its candidate
DIR/tune.svg           losses by memory, and the bets
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from rich.console import Console

from dynts_batch.config_file import to_yaml
from dynts_batch.data.files.storage import Storage
from dynts_batch.data.readers.reader import open_source
from dynts_batch.errors import InputError
from dynts_batch.exit_status import EXIT_OK
from dynts_batch.report.charts.ladder_chart import Bet, ladder_chart
from dynts_batch.report.frontier import FULL
from dynts_batch.report.tuning.betting import log_wealth
from dynts_batch.report.tuning.certificate import certificate, claim
from dynts_batch.report.tuning.ladder import FIRST_LOOK, Ladder, Rung
from dynts_batch.report.tuning.lines import check_enough, forecast, spent_line, surer_lines, table
from dynts_batch.report.tuning.losses import Disagreement, Loss, graded_loss
from dynts_batch.report.tuning.outcome import Outcome
from dynts_batch.report.tuning.spent import Spent
from dynts_batch.runner.tuning.arm import Arm
from dynts_batch.runner.tuning.request import FROZEN, Request
from dynts_batch.telemetry import setup_logging

_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def tune(request: Request) -> int:
    """Run what is needed and write what was found; the exit status.

    Raises: what a run raises, before anything is run where a setting is wrong or the questions are too few.
    """
    from dynts_batch.runner.cluster import open_cluster

    setup_logging()
    console, out = Console(stderr=True), Console(file=sys.stdout)
    request.check()
    source = open_source(request.base.input, request.base.sampling)
    order = request.order(source.num_rows)
    num_pilot = 0 if request.budgets else min(FIRST_LOOK, source.num_rows)
    num_questions = min(len(order) - num_pilot, request.max_questions or len(order))
    delta = request.terms.delta / len(request.variants)
    check_enough(num_questions, request.terms, delta)
    for line in forecast(num_questions, request.terms, delta):
        out.print(line, **_PLAIN)
    if not request.is_graded and request.base.sampling.temperature > 0:
        out.print(
            "without references every answer that differs counts as lost, and at sampling.temperature above 0 some differ"
            " by chance: temperature 0 needs fewer questions",
            **_PLAIN,
        )
    frozen = request.frozen(source.fingerprint, order)
    pilot, questions = order[:num_pilot], order[num_pilot : num_pilot + num_questions]
    address = os.environ.get("RAY_ADDRESS") or None
    tuning = Tuning(request, pilot, questions, address)
    tuning.prepare()
    storage = Storage(request.folder)
    storage.create()
    storage.write_json(FROZEN, frozen)
    with open_cluster(address):  # one for all candidates
        status = tuning.run(console)
    if tuning.outcome is not None:
        tuning.write(tuning.outcome, frozen, out)
    return EXIT_OK if status is None else status


class Tuning:
    """The full cache and the candidates on `questions`, which are rows of the input in the order in which they are answered."""

    def __init__(
        self, request: Request, pilot: list[int], questions: list[int], address: str | None
    ) -> None:
        """`pilot`: questions that only tell how long the full cache's rows become; they certify nothing."""
        self._request, self._pilot, self._questions = request, pilot, questions
        self._address = address
        self._full = Arm(FULL, request.config(FULL, None), address)
        self._arms: dict[Rung, Arm] = {}
        self._ladder: Ladder | None = None
        self._losses: dict[Rung, np.ndarray] = {}

    def prepare(self) -> None:
        """Check all that can be checked before Ray starts. Raises: ConfigError, InputError, RunDirError."""
        self._full.prepare()
        if self._request.budgets is not None:
            self._climb(self._request.budgets)

    def run(self, console: Console) -> int | None:
        """Until all is decided; the exit status where a run was stopped before."""
        if (status := self._full.run(self._pilot, console)) is not None:
            return status
        if self._ladder is None:
            self._climb(self._budgets())
        assert self._ladder is not None
        with ExitStack() as stack:
            loss: Loss = graded_loss
            if not self._request.is_graded:
                loss = stack.enter_context(Disagreement(self._request.base.grading))
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
            num_questions=len(self._questions), num_samples=self._request.base.sampling.num_samples, spent=spent,
        )  # fmt: skip

    def write(self, outcome: Outcome, frozen: dict[str, Any], out: Console) -> None:
        """Certificate, configuration and picture; and all of it in words."""
        storage, folder = Storage(self._request.folder), self._request.folder
        found = certificate(outcome, frozen, self._full.run_dir.fingerprint("model")["model"])
        chosen = self._full if outcome.choice is None else self._arms[outcome.choice.rung]
        head = (
            f"# {found['claim']}.\n# See certificate.json. It goes on where the tuning has stopped;"
        )
        head += " for other data, set input.path and run.dir.\n\n"
        storage.write_json("certificate.json", found)
        storage.write("tuned.yaml", (head + to_yaml(chosen.config)).encode())
        storage.write("tune.svg", _picture(outcome).encode())
        storage.delete_temp_files()
        out.print(table(outcome))
        out.print(f"{claim(outcome, is_graded=frozen['is_graded'])}.", **_PLAIN)
        for line in (*surer_lines(outcome), spent_line(outcome)):
            out.print(line, **_PLAIN)
        out.print(f"dynts-batch run {folder}/tuned.yaml", **_PLAIN)
        out.print(f"{folder}/certificate.json, {folder}/tune.svg", **_PLAIN)

    def _budgets(self) -> list[int]:
        """Of the shares, by what the full cache has stored of the pilot's questions. Raises: InputError."""
        peaks = [
            row["peak_cache_len"]
            for rows in self._full.rows(self._pilot)
            for row in rows
            if row["finish_reason"] != "error"
        ]
        if not peaks:
            raise InputError(
                f"{self._full.run_dir.path} must hold a row without an error, to take --shares of, got none"
            )
        return [round(share / 100 * sum(peaks) / len(peaks)) for share in self._request.shares]

    def _climb(self, budgets: Sequence[int]) -> None:
        self._ladder = self._request.ladder(budgets)
        for rung in self._ladder.rungs:
            config = self._request.config(rung.policy, rung.budget)
            self._arms[rung] = Arm(str(rung), config, self._address)
            self._arms[rung].prepare()

    def _read(self, rung: Rung, loss: Loss) -> None:
        """Take in the losses that are known: of the questions that both have answered, up to the first that one has not.

        Raises: InputError where no question can be judged.
        """
        mine = self._arms[rung].rows(self._questions)
        full = self._full.rows(self._questions[: len(mine)])
        known = self._losses.get(rung, np.empty(0))
        both = list(zip(full, mine, strict=False))[len(known) :]
        losses = np.concatenate([known, [loss(*rows) for rows in both]])
        if len(losses) >= FIRST_LOOK and np.isnan(losses).all():
            raise InputError(
                f"input.path must hold questions that can be judged, got {len(losses):,} of which none can: see"
                f" {self._full.run_dir.path}"
            )
        self._losses[rung] = losses


def _picture(outcome: Outcome) -> str:
    terms, ladder = outcome.ladder.terms, outcome.ladder
    bets = [
        Bet(
            name=str(tried.rung),
            memory=100 * (tried.memory or 0.0),
            loss=100 * tried.mean_loss,
            bounds=(100 * tried.bounds[0], 100 * tried.bounds[1]),
            log_wealth=log_wealth(tried.losses, terms.most_loss)[0][: tried.trial.judgement.num],
            is_certified=tried.is_certified,
        )
        for tried in outcome.tried
    ]
    return ladder_chart(
        bets,
        most_loss=100 * terms.most_loss,
        delta=ladder.delta,
        title=f"At most {100 * terms.most_loss:g} points lost, with confidence {1 - terms.delta:.4g}",
    )
