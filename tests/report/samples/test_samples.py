"""Laws of a run that stopped early: its figures are those of a run of all samples,
told from fewer of them."""

import io
import random
from dataclasses import replace

import numpy as np
import pytest
from report_runs import ERROR_ROW, ROW, write_run
from rich.console import Console

from dynts_batch.config import SamplingConfig
from dynts_batch.grading.pass_at_k import pass_at_k
from dynts_batch.grading.stopping import Sample, Stopping
from dynts_batch.report.comparison.side_by_side import conclusion
from dynts_batch.report.measures import Measures, measure
from dynts_batch.report.page.page import render_page
from dynts_batch.report.run_rows import read_run
from dynts_batch.report.samples.at_k import of_all, of_stopped
from dynts_batch.report.samples.savings import Savings
from dynts_batch.report.tables import show_report

NUM_SAMPLES, NUM_QUESTIONS = 16, 1500
SKIPPED = ERROR_ROW | {"finish_reason": "skipped", "error_type": None, "error_message": None}
SKIPPED |= {"energy_j": 0.0, "cost_usd": 0.0}


def _stopping(**changes) -> Stopping:
    made = Stopping.from_config(replace(SamplingConfig(num_samples=NUM_SAMPLES), **changes))
    assert made is not None
    return made


def _stopped(stopping, votes):
    """The first of `votes`, as many as are run."""
    for num in range(stopping.window, len(votes), stopping.window):
        samples = [Sample(*vote) for vote in votes[:num]]
        if any(not stopping.num_missing(samples[:part]) for part in range(num + 1)):
            return votes[:num]
    return votes


def _questions():
    """Votes of all samples; how likely the right answer is differs much between questions."""
    dice = random.Random(0)
    for _ in range(NUM_QUESTIONS):
        p = dice.betavariate(1.2, 0.8)
        answers = dice.choices(
            ["r", "w", "v", None], [p, (1 - p) / 2, (1 - p) / 4, (1 - p) / 4], k=16
        )
        yield [(answer, answer == "r") for answer in answers]


@pytest.fixture(scope="module")
def questions():
    return list(_questions())


def test_a_question_whose_samples_failed_is_not_left_out_for_being_unsolved():
    """Five of ten end with their first sample; one of the others' eight failed."""
    votes = [[("5", True)]] * 5 + [[("6", False)] * 7] * 5
    found = of_stopped(_stopping(stop_when="right", num_samples=8), votes, votes)
    assert {at.k: at.pass_at_k for at in found} == {1: 0.5, 2: 0.5, 4: 0.5, 8: 0.5}


@pytest.mark.parametrize("window", [1, 3])
def test_pass_at_every_k_is_told_without_bias_though_a_question_ends_with_its_first_right_sample(
    questions, window
):
    stopping = _stopping(stop_when="right", stop_window=window)
    votes = [_stopped(stopping, its) for its in questions]
    found = {at.k: at for at in of_stopped(stopping, votes, [v[:window] for v in votes])}
    assert sorted(found) == [1, 2, 4, 8, 16]
    for k, at in found.items():
        shares = [pass_at_k(16, sum(right for _, right in its), k) for its in questions]
        assert at.pass_at_k == pytest.approx(np.mean(shares), abs=3.5 / np.sqrt(NUM_QUESTIONS) / 2)
        assert at.majority_at_k is None
        assert at.num_questions == NUM_QUESTIONS
    of_those_run = np.mean([np.mean([right for _, right in its]) for its in votes])
    assert of_those_run > found[1].pass_at_k + 0.02  # what would be told from all of them


def test_the_vote_that_was_decided_stands_for_that_of_all_samples(questions):
    stopping, questions = _stopping(stop_when="agreed"), questions[:600]
    votes = [_stopped(stopping, its) for its in questions]
    *early, decided = of_stopped(stopping, votes, [its[:4] for its in votes])
    assert [at.k for at in early] == [1, 2, 4]
    plain = of_all(questions)
    assert early == of_all([its[:4] for its in questions])
    assert decided.k == plain[-1].k == 16
    assert decided.pass_at_k is None
    assert decided.majority_at_k == pytest.approx(plain[-1].majority_at_k, abs=0.02)
    assert sum(map(len, votes)) < 0.7 * 16 * len(questions)


def _write(path, questions, stop_when) -> Measures:
    """A run of `questions`, of which a right sample takes 100 tokens and a dollar,
    any other three times that."""
    overrides = [f"sampling.num_samples={NUM_SAMPLES}", "run.shard_rows=64"]
    stopping = None
    if stop_when is not None:
        overrides += [f"sampling.stop_when={stop_when}", "input.reference_column=reference"]
        stopping = _stopping(stop_when=stop_when)
    rows = []
    for number, votes in enumerate(questions):
        num_run = len(votes if stopping is None else _stopped(stopping, votes))
        for index, (answer, right) in enumerate(votes):
            units = 1 if right else 3
            row = {
                "extracted_answer": answer,
                "correct": right,
                "completion_tokens": 100 * units,
                "cost_usd": units,
            }
            row = (ROW if index < num_run else SKIPPED) | (row if index < num_run else {})
            rows.append(row | {"request_id": f"q{number}", "sample_index": index})
    return measure([read_run(write_run(path, rows, overrides=overrides))])[0]


@pytest.fixture(scope="module")
def runs(questions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {
        when: _write(folder / str(when), questions[:200], when)
        for when in (None, "agreed", "right")
    }


@pytest.mark.parametrize("when", ["agreed", "right"])
def test_what_all_samples_would_have_taken_is_told_from_those_that_are_always_run(runs, when):
    plain, savings = runs[None].totals, runs[when].savings
    assert savings.num_samples == plain.num_rows
    assert savings.num_run == runs[when].totals.num_answers < savings.num_samples
    assert savings.tokens == runs[when].totals.completion_tokens
    assert savings.plain_tokens == pytest.approx(plain.completion_tokens, rel=0.1)
    assert savings.plain_usd == pytest.approx(plain.dollars.total, rel=0.1)
    assert 0 < savings.tokens_share < 1


def test_nothing_is_saved_where_all_samples_were_run(tmp_path):
    """Also if the first of each question is longer than the others."""
    run = _write(tmp_path / "run", [[("w", False), *15 * [("r", True)]], 16 * [("v", False)]], None)
    savings = Savings.of(run.run, np.repeat([0, 1], NUM_SAMPLES), num_certain=1)
    assert savings.run_share == 1
    assert savings.tokens_share == 0
    assert (savings.plain_tokens, savings.plain_usd) == (savings.tokens, savings.usd)


@pytest.mark.parametrize("when", ["agreed", "right"])
def test_skipped_rows_count_in_no_mean_and_as_no_error(runs, when):
    stopped, plain = runs[when], runs[None]
    assert stopped.totals.num_errors == 0
    assert stopped.totals.tokens_per_problem >= 100
    assert len(stopped.of_answers("completion_tokens")) == stopped.totals.num_answers
    first = stopped.totals.num_certain
    shares = [np.mean([right for _, right in its[:first]]) for its in list(_questions())[:200]]
    assert stopped.right_share == pytest.approx(np.mean(shares))
    assert stopped.totals.right_share == pytest.approx(np.mean(shares))
    assert stopped.accuracy_with_errors == pytest.approx(np.mean(shares))
    assert plain.totals.num_judged == plain.totals.num_counted


def _text(runs: list[Measures]) -> str:
    file = io.StringIO()
    show_report(runs, Console(file=file, width=120))
    return file.getvalue()


def test_the_report_says_what_was_saved_in_dollars_per_right_vote(runs):
    run = runs["agreed"]
    text, savings, num = _text([run]), run.savings, run.num_right("right vote")
    assert f"{savings.num_run:,} of 3,200" in text
    assert "a question gets no more once its vote is decided by posterior at 0.95" in text
    assert f"{savings.tokens_share:.1%}" in text
    assert f"${savings.usd / num:,.2f}" in text
    assert f"about ${savings.plain_usd / num:,.2f} if all samples were run" in text
    assert "pass@16" not in text  # it is not known
    assert "samples run" in render_page([run])


def test_beside_the_plain_run_prices_are_of_questions(runs):
    """A right sample costs the same however many there are:
    only of a question does stopping lower the price."""
    pair = [runs[None], runs["agreed"]]
    assert conclusion(pair).startswith(f"Cheapest right vote: {runs['agreed'].label}, $")
    own, plain = (run.usd_per("right vote") for run in reversed(pair))
    assert f"{1 - own / plain:.0%} less than" in conclusion(pair)
    assert "the tokens per right vote" in _text(pair)
    solved = [runs[None], runs["right"]]
    assert conclusion(solved).startswith("Cheapest solved question: ")


def test_a_run_of_one_sample_says_nothing_of_samples(tmp_path):
    run = measure([read_run(write_run(tmp_path / "run", [{}]))])
    assert "vote" not in _text(run)
    assert "samples run" not in _text(run)
