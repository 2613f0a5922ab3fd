"""`dynts-batch tune`: the cheapest policy and budget that loses less than so much,
each candidate run no further than needed.

DIR/frozen.json        what is promised, of which candidates and data; written before any answer
DIR/cells/full-s0/     a run directory each, with the questions needed; the same command goes on
DIR/certificate.json   what was found
DIR/tuned.yaml         the configuration to run; it goes on in its candidate's run directory
DIR/tune.svg           losses by memory, and the bets
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from dynts_batch.config import Config
from dynts_batch.config_file import to_yaml
from dynts_batch.data.files.filesystem import extended
from dynts_batch.data.files.storage import Storage
from dynts_batch.data.readers.reader import open_source
from dynts_batch.errors import ConfigError
from dynts_batch.exit_status import EXIT_OK
from dynts_batch.report.charts.ladder_chart import Bet, ladder_chart
from dynts_batch.report.tuning.betting import log_wealth
from dynts_batch.report.tuning.certificate import certificate
from dynts_batch.report.tuning.ladder import FIRST_LOOK
from dynts_batch.report.tuning.lines import check_enough, forecast, spent_line, surer_lines, table
from dynts_batch.report.tuning.outcome import Outcome
from dynts_batch.runner.prepared_run import MAX_SHARDS
from dynts_batch.runner.tuning.climb import Climb
from dynts_batch.runner.tuning.settings import FROZEN, TuneSettings
from dynts_batch.telemetry import setup_logging

_PLAIN: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}


def tune(settings: TuneSettings) -> int:
    """Run what is needed and write what was found; the exit status.

    Raises: what a run raises, before anything is run where a setting is
    wrong or the questions are too few.
    """
    from dynts_batch.runner.cluster import open_cluster

    setup_logging()
    settings.check()
    out = Console(file=sys.stdout)
    source = open_source(settings.base.input, settings.base.sampling)
    order = _order(settings, source.num_rows)
    for line in _forecast(settings, len(order.questions)):
        out.print(line, **_PLAIN)
    frozen = settings.frozen(source.fingerprint, [*order.pilot, *order.questions, *order.rest])
    address = os.environ.get("RAY_ADDRESS") or None
    climb = Climb(settings, order.pilot, order.questions, address)
    climb.prepare()
    storage = Storage(settings.folder)
    storage.create()
    storage.write_json(FROZEN, frozen)
    with open_cluster(address):  # one for all candidates
        status = climb.run(Console(stderr=True))
    if (outcome := climb.outcome) is not None:
        found = certificate(outcome, frozen, climb.model)
        _write(storage, found, climb.config(outcome), outcome)
        _show(found, settings.folder, outcome, out)
    return EXIT_OK if status is None else status


@dataclass(frozen=True)
class _Order:
    """All rows of the input, in the order in which they are answered."""

    pilot: list[int]
    """They only tell how long the full cache's rows become, and certify nothing."""
    questions: list[int]
    rest: list[int]
    """Beyond --max-questions."""


def _order(settings: TuneSettings, num_rows: int) -> _Order:
    """Raises: ConfigError, InputError where there are too many or too few
    for what is to be certified."""
    if num_rows > MAX_SHARDS:
        raise ConfigError(
            f"input.limit must be at most {MAX_SHARDS:,} for tuning, which needs a file for each"
            f" question, got {num_rows:,} rows"
        )
    rows = settings.order(num_rows)
    num_pilot = 0 if settings.budgets else min(FIRST_LOOK, num_rows)
    end = num_pilot + min(num_rows - num_pilot, settings.max_questions or num_rows)
    check_enough(end - num_pilot, settings.terms, settings.delta)
    return _Order(rows[:num_pilot], rows[num_pilot:end], rows[end:])


def _forecast(settings: TuneSettings, num_questions: int) -> Iterator[str]:
    """What is said before the first row."""
    yield from forecast(num_questions, settings.terms, settings.delta)
    if not settings.is_graded and settings.base.sampling.temperature > 0:
        yield (
            "without references every answer that differs counts as lost, and at"
            " sampling.temperature above 0 some differ by chance: temperature 0 needs fewer"
            " questions"
        )


def _write(storage: Storage, found: dict[str, Any], config: Config, outcome: Outcome) -> None:
    head = (
        f"# {found['claim']}.\n# It goes on where the tuning has stopped; for other data, set"
        " input.path and run.dir. See certificate.json.\n\n"
    )
    storage.write_json("certificate.json", found)
    storage.write("tuned.yaml", (head + to_yaml(config)).encode())
    storage.write("tune.svg", _picture(outcome).encode())
    storage.delete_temp_files()


def _show(found: dict[str, Any], folder: str, outcome: Outcome, out: Console) -> None:
    out.print(table(outcome))
    for line in (f"{found['claim']}.", *surer_lines(outcome), spent_line(outcome)):
        out.print(line, **_PLAIN)
    tuned, proof, drawing = (
        extended(folder, name) for name in ("/tuned.yaml", "/certificate.json", "/tune.svg")
    )
    out.print(f"dynts-batch run {tuned}", **_PLAIN)
    out.print(f"{proof}, {drawing}", **_PLAIN)


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
        title=f"At most {100 * terms.most_loss:g} points lost, with confidence"
        f" {1 - terms.delta:.4g}",
    )
