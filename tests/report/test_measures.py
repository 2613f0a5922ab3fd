"""Laws of a run's figures: they follow from the rows, errors count in no mean,
and nothing unknown is guessed."""

import numpy as np
import pytest
from report_runs import ERROR_ROW, SAMPLE, write_run

from dynts_batch.report.measures import Measures, measure
from dynts_batch.report.run_rows import read_run


def _measures(tmp_path, rows, *args, **kwargs) -> Measures:
    return measure([read_run(write_run(tmp_path / "run", rows, *args, **kwargs))])[0]


def _row(question, sample=0, *, correct=True, **changes):
    return {"request_id": question, "sample_index": sample, "correct": correct, **changes}


def test_accuracy_is_the_mean_over_questions_of_their_judged_samples(tmp_path):
    rows = [
        _row("a", 0), _row("a", 1), _row("b", 0, correct=False), _row("b", 1),
        _row("c", 0, correct=False), ERROR_ROW | _row("c", 1, correct=None),
    ]  # fmt: skip
    found = _measures(tmp_path, rows)
    assert found.questions == {"a": 1.0, "b": 0.5, "c": 0.0}
    assert found.right_share == pytest.approx(0.5)
    assert (found.totals.num_correct, found.totals.num_judged, found.totals.num_errors) == (3, 5, 1)
    assert found.accuracy_with_errors == pytest.approx(3 / 6)


def test_pass_and_majority_use_the_votes_of_a_question(tmp_path):
    answers = [("5", True), ("5.0", True), ("6", False), ("7", False)]
    rows = [
        _row("a", i, correct=c, extracted_answer=answer) for i, (answer, c) in enumerate(answers)
    ] + [_row("b", i, correct=False, extracted_answer=None) for i in range(4)]
    by_k = {found.k: found for found in _measures(tmp_path, rows).at_k}
    assert sorted(by_k) == [1, 2, 4]
    assert by_k[1].pass_at_k == by_k[1].majority_at_k == pytest.approx(0.25)
    assert by_k[4].pass_at_k == pytest.approx(0.5)
    assert by_k[4].majority_at_k == pytest.approx(0.5)  # "5" and "5.0" are one answer


def test_prices_are_totals_over_what_one_divides_them_by(tmp_path):
    rows = [_row("a"), _row("b", correct=False), _row("c"), ERROR_ROW | _row("d", correct=None)]
    found = _measures(tmp_path, rows)
    assert found.totals.dollars.total == pytest.approx(0.75)
    assert found.totals.dollars.per_answer == pytest.approx(0.25)
    assert found.totals.dollars.per_correct == pytest.approx(0.375)
    assert found.totals.dollars.per_million_tokens == pytest.approx(0.75 / 273 * 1e6)
    assert found.totals.joules.per_correct == pytest.approx(9.0)


def test_one_unknown_share_makes_the_total_unknown(tmp_path):
    found = _measures(tmp_path, [_row("a"), _row("b", energy_j=None, cost_usd=None), _row("c")])
    assert found.totals.dollars.total is None
    assert found.totals.dollars.per_correct is None
    assert found.totals.joules.per_answer is None


def test_without_judgement_there_is_no_accuracy_and_no_price_of_a_right_answer(tmp_path):
    found = _measures(tmp_path, [_row("a", correct=None), _row("b", correct=None)])
    assert found.accuracy is None
    assert found.totals.num_correct is None
    assert found.at_k == []
    assert found.totals.dollars.per_correct is None
    assert found.totals.dollars.per_answer is not None


def test_a_right_answer_has_no_price_where_none_is_right(tmp_path):
    found = _measures(tmp_path, [_row("a", correct=False)])
    assert found.totals.dollars.per_correct is None
    assert found.right_share == 0.0


def test_a_run_of_errors_only_has_no_figures_and_raises_nothing(tmp_path):
    found = _measures(tmp_path, [ERROR_ROW | _row("a", correct=None)], ())
    assert found.accuracy is None
    for name in ("tokens_per_problem", "truncated_share", "stored_share", "crossover"):
        assert getattr(found.totals, name) is None, name
    assert found.totals.dollars.total is None
    assert found.totals.device is None
    assert found.totals.tokens_per_s is None


def test_time_held_at_work_and_its_price_come_from_the_telemetry(tmp_path):
    samples = [
        SAMPLE | {"cost_usd": 0.0},
        SAMPLE | {"time_s": 1_100.0, "busy_s": 50.0, "cost_usd": 0.5},
        SAMPLE | {"worker_id": "w-1", "time_s": 1_050.0, "cost_usd": 0.1},
        SAMPLE | {"worker_id": "w-1", "time_s": 1_150.0, "busy_s": 90.0, "cost_usd": 1.5},
    ]  # fmt: skip
    # Another price, or one of energy too, held when the workers started.
    found = _measures(
        tmp_path, [_row("a"), _row("b")], samples, overrides=["cost.usd_per_gpu_hour=3.6"]
    )
    assert found.totals.device.wall_s == pytest.approx(150)
    assert found.totals.device.held_s == pytest.approx(200)
    assert found.totals.device.busy_share == pytest.approx(0.7)
    assert found.totals.held_usd == pytest.approx(2.0)
    assert found.totals.tokens_per_s == pytest.approx(2 * 91 / 150)


def test_workers_that_share_a_gpu_hold_it_once(tmp_path):
    gpu = {"device_uuid": "GPU-1", "utilisation_mean": 0.5}
    samples = [
        SAMPLE | gpu, SAMPLE | gpu | {"time_s": 1_100.0},
        SAMPLE | gpu | {"worker_id": "w-1"}, SAMPLE | gpu | {"worker_id": "w-1", "time_s": 1_100.0},
    ]  # fmt: skip
    found = _measures(tmp_path, [_row("a")], samples)
    assert found.totals.device.held_s == pytest.approx(100)
    assert found.totals.device.utilisation == pytest.approx(0.5)


def test_lengths_split_all_answers_by_their_judgement(tmp_path):
    rows = [
        _row("a", completion_tokens=5), _row("b", correct=False, completion_tokens=100),
        _row("c", correct=None), ERROR_ROW | _row("d", correct=None),
    ]  # fmt: skip
    lengths = _measures(tmp_path, rows).lengths()
    assert {name: values.tolist() for name, values in lengths.items()} == {
        "right": [5.0],
        "wrong": [100.0],
        "not judged": [91.0],
    }


def test_the_dearest_rows_are_known_ones_that_were_run(tmp_path):
    rows = [
        _row("a", cost_usd=1.0), _row("b", cost_usd=3.0), _row("c", cost_usd=None),
        ERROR_ROW | _row("d", correct=None, cost_usd=9.0),
    ]  # fmt: skip
    assert _measures(tmp_path, rows).top_rows("cost_usd", 10) == [1, 0]


def test_runs_are_told_apart_by_policy_and_budget_and_else_by_folder(tmp_path):
    paths = [
        write_run(tmp_path / "a", [_row("a")]),
        write_run(tmp_path / "b", [_row("a")]),
        write_run(tmp_path / "c", [_row("a")], overrides=["policy.budget=99"]),
        write_run(tmp_path / "d", [_row("a")], overrides=["policy.name=full"]),
    ]
    labels = [run.label for run in measure([read_run(path) for path in paths])]
    assert labels == ["window 30 (a)", "window 30 (b)", "window 99", "full"]


def test_texts_are_those_of_the_rows_asked_for_whatever_their_shard(tmp_path):
    rows = [_row(f"q{i}", prompt=f"prompt {i}") for i in range(11)]
    run = read_run(write_run(tmp_path / "run", rows, shard_rows=4))
    texts = run.texts([10, 0, 7, 3])
    assert {row: text["prompt"] for row, text in texts.items()} == {
        row: f"prompt {row}" for row in (10, 0, 7, 3)
    }
    assert run.num_rows == 11
    assert np.isfinite(run.numbers("decode_s")).all()


TRACE = {"token_texts": ["a", "b"], "evicted_at": [None, 2], "kept_share": [1.0, 0.0]}


def test_traced_rows_are_found_without_reading_all_of_them(tmp_path):
    rows = [_row(f"q{i}", token_trace=TRACE if i in (2, 6, 9) else None) for i in range(11)]
    run = read_run(write_run(tmp_path / "run", rows, shard_rows=4))
    assert run.traced_shards == (0, 1, 2)
    assert run.traced_rows(8) == [2, 6, 9]
    assert len(run.traced_rows(2)) == 2
