"""Laws of the ladder: its order, what it runs, that it keeps the promise for all its rungs,
and that it forgets no look."""

import numpy as np
import pytest

from dynts_batch.report.tuning.betting import VERDICTS, first_verdicts, least_questions
from dynts_batch.report.tuning.ladder import FIRST_LOOK, Ladder, Rung, Terms, try_rung

X, DELTA = 0.05, 0.05
NUM_WORLDS = 1000
#: Where it is hardest: after a rung that loses nothing, one whose loss is exactly the bound.
TRUE_LOSSES = {400: 0.0, 300: X, 200: 3 * X}


def worlds(rng, ladder, num_worlds, num_questions, share_differing):
    """The losses [worlds, questions] of every rung on the same questions:
    what one rung has lost, others often lose too."""
    luck = rng.random((num_worlds, num_questions))
    found = {}
    for rung in ladder.rungs:
        loss = TRUE_LOSSES[rung.budget]
        is_shared = rng.random(luck.shape) < 0.5
        own = np.where(is_shared, luck, rng.random(luck.shape))
        share = max(share_differing, loss)
        found[rung] = np.select([own < (share + loss) / 2, own < share], [1.0, -1.0], 0.0)
    return found


def climb(ladder, answers, num_questions):
    """Run what the ladder asks for: the losses it has paid for."""
    paid = {}
    while need := ladder.next_need(paid, num_questions):
        rung, num = need
        assert num > len(paid.get(rung, ())), "what is there is not asked for again"
        paid[rung] = answers[rung][:num]
    return paid


def certified(ladder, paid, num_questions):
    trials = ladder.trials(paid, num_questions)
    return {r for r, trial in trials.items() if trial and trial.judgement.verdict == "holds"}


def certifiable(ladder, losses):
    """Whether each rung [worlds] would be certified,
    if no candidate were given up before the last question."""
    found, stands = {}, {}
    for rung in ladder.rungs:
        verdicts, _ = first_verdicts(losses[rung], ladder.terms.most_loss, ladder.delta)
        stands[rung.policy] = stands.get(rung.policy, True) & (verdicts == VERDICTS.index("holds"))
        found[rung] = stands[rung.policy]
    return found


@pytest.mark.parametrize("share_differing", [0.06, 0.3])
@pytest.mark.parametrize("policies", [["dynts"], ["dynts", "rkv"]], ids=["one chain", "two chains"])
def test_in_at_most_delta_of_1000_worlds_a_rung_is_certified_that_loses_as_much(
    policies, share_differing
):
    ladder = Ladder.of(policies, list(TRUE_LOSSES), Terms(X, DELTA))
    losses = worlds(np.random.default_rng(7), ladder, NUM_WORLDS, 1500, share_differing)
    found = certifiable(ladder, losses)
    wrong = [found[rung] for rung in ladder.rungs if TRUE_LOSSES[rung.budget] >= X]
    assert np.any(wrong, axis=0).mean() <= DELTA
    right = [found[rung] for rung in ladder.rungs if TRUE_LOSSES[rung.budget] == 0]
    assert np.any(right, axis=0).mean() > 0.6, "a promise that certifies nothing is none"


def test_looking_now_and_then_and_giving_up_certify_nothing_more():
    """So the promise of the 1,000 worlds is that of the ladder as it is run,
    which saves questions."""
    ladder = Ladder.of(["dynts", "rkv"], list(TRUE_LOSSES), Terms(X, DELTA))
    num_worlds, num_questions = 25, 600
    losses = worlds(np.random.default_rng(8), ladder, num_worlds, num_questions, 0.06)
    allowed, num_certified, num_paid = certifiable(ladder, losses), 0, 0
    for number in range(num_worlds):
        paid = climb(ladder, {rung: losses[rung][number] for rung in losses}, num_questions)
        found = certified(ladder, paid, num_questions)
        assert found <= {rung for rung in ladder.rungs if allowed[rung][number]}
        num_certified += len(found)
        num_paid += sum(map(len, paid.values()))
    assert num_certified >= 0.8 * sum(stands.sum() for stands in allowed.values())
    assert num_paid < 0.6 * num_worlds * num_questions * len(ladder.rungs)


def test_the_order_is_the_largest_budget_first_then_the_policies_as_given():
    ladder = Ladder.of(["rkv", "dynts", "rkv"], [200, 400, 200], Terms(X, DELTA))
    assert [str(rung) for rung in ladder.rungs] == [
        "rkv at 400", "dynts at 400", "rkv at 200", "dynts at 200",
    ]  # fmt: skip
    assert ladder.delta == DELTA / 2


def test_a_cheaper_rung_is_run_only_after_the_one_before_it_is_certified():
    ladder = Ladder.of(["dynts", "window"], [400, 200], Terms(X, DELTA))
    answers = {
        rung: np.zeros(500) if rung.policy == "dynts" else np.ones(500) for rung in ladder.rungs
    }
    paid = climb(ladder, answers, 500)
    assert set(paid) == {Rung("dynts", 400), Rung("window", 400), Rung("dynts", 200)}
    assert len(paid[Rung("window", 400)]) == FIRST_LOOK
    assert ladder.trials(paid, 500)[Rung("window", 200)] is None
    assert {len(paid[rung]) for rung in paid if rung.policy == "dynts"} == {
        least_questions(X, ladder.delta)
    }


def test_a_run_that_broke_off_anywhere_goes_on_as_if_it_had_not():
    """The verdict and where it looked follow from the questions alone,
    not from how many were there when it started."""
    rng = np.random.default_rng(8)
    for loss in (0.0, 0.02, 0.05, 0.2):
        answers = np.where(rng.random(700) < 0.1, rng.choice([1.0, -1.0], 700), 0.0)
        answers[rng.random(700) < loss] = 1.0
        known = np.empty(0)
        while (trial := try_rung(known, X, DELTA, 700)).num_wanted is not None:
            known = answers[: trial.num_wanted]
        for num in (*rng.integers(0, trial.num_seen, 5), trial.num_seen, 700):
            resumed = answers[:num]
            while (again := try_rung(resumed, X, DELTA, 700)).num_wanted is not None:
                assert again.num_wanted > len(resumed)
                resumed = answers[: again.num_wanted]
            assert again == trial


def test_questions_that_say_nothing_are_looked_at_and_not_counted():
    answers = np.zeros(1000)
    answers[::2] = np.nan
    known = np.empty(0)
    while (trial := try_rung(known, X, DELTA, 1000)).num_wanted is not None:
        known = answers[: trial.num_wanted]
    least = least_questions(X, DELTA)
    assert trial.judgement.verdict == "holds"
    assert trial.judgement.num == least
    assert 2 * least - 1 <= trial.num_seen < 2.5 * least


def test_what_cannot_be_certified_with_the_questions_left_is_given_up_before_they_are_spent():
    rng = np.random.default_rng(9)
    answers = (rng.random(1000) < 0.12).astype(float)
    known = np.empty(0)
    while (trial := try_rung(known, X, DELTA, 1000)).num_wanted is not None:
        known = answers[: trial.num_wanted]
    assert trial.judgement.verdict != "holds"
    assert trial.num_seen < 300
    few = try_rung(np.empty(0), X, DELTA, least_questions(X, DELTA) - 1)
    assert few.num_wanted is None


def test_a_candidate_that_never_differs_takes_little_more_than_the_least():
    rng = np.random.default_rng(10)
    for share in (0.0, 0.01, 0.02):
        spent = []
        for _ in range(8):
            answers = np.where(rng.random(2000) < share, rng.choice([1.0, -1.0], 2000), 0.0)
            known = np.empty(0)
            while (trial := try_rung(known, 0.02, DELTA, 2000)).num_wanted is not None:
                known = answers[: trial.num_wanted]
            spent.append(trial.num_seen / trial.judgement.num)
        assert np.mean(spent) < 1.3
