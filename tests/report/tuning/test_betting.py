"""Laws of the bets: no more wrong verdicts than promised, the definition's wealth,
and as many questions as foretold."""

import numpy as np
import pytest

from dynts_batch.report.tuning.betting import (
    VERDICTS,
    bounds,
    first_verdicts,
    judge,
    least_loss,
    least_questions,
    log_wealth,
    questions_needed,
)

NUM_WORLDS = 1000


def differences(rng, size, share_differing, loss):
    """Per question, full minus candidate: 1, -1 or 0."""
    worse, better = (share_differing + loss) / 2, (share_differing - loss) / 2
    return rng.choice([1.0, -1.0, 0.0], size=size, p=[worse, better, 1 - share_differing])


def share_with(verdict, losses, most_loss, delta):
    verdicts, _ = first_verdicts(losses, most_loss, delta)
    return float(np.mean(verdicts == VERDICTS.index(verdict)))


@pytest.mark.parametrize("share_differing", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("wrong", ["holds", "fails"])
def test_at_the_bound_either_verdict_comes_in_at_most_delta_of_the_worlds(share_differing, wrong):
    """Looked at after every question, where it is hardest: the true loss is exactly the bound."""
    losses = differences(np.random.default_rng(0), (NUM_WORLDS, 1500), share_differing, 0.02)
    for delta in (0.1, 0.05):
        assert share_with(wrong, losses, 0.02, delta) <= delta


def test_losses_that_are_shares_of_samples_keep_the_promise_too():
    rng = np.random.default_rng(4)
    four = differences(rng, (NUM_WORLDS, 1500, 4), 0.3, 0.02).mean(axis=2)
    assert share_with("holds", four, 0.02, 0.05) <= 0.05


def test_what_the_promise_forbids_would_be_seen():
    """The bound of the test above is one that can be broken:
    by a look at every mean, as if each were the only one."""
    losses = differences(np.random.default_rng(0), (NUM_WORLDS, 3000), 0.2, 0.02)
    num = np.arange(1, 3001)
    error = np.sqrt(0.2 / num)
    is_low = (np.cumsum(losses, axis=1) / num + 1.645 * error < 0.02)[:, 100:]
    assert is_low.any(axis=1).mean() > 0.1


def test_the_wealth_is_that_of_the_definition():
    """methods: W *= 1 + l (x - D), l = clip((x - mu) / (v + (x - mu)^2), 0, .5 / (1 - x)),
    from earlier D only."""
    rng, x = np.random.default_rng(2), 0.03
    losses = differences(rng, 200, 0.3, 0.0)
    wealth, wealths = 1.0, []
    for i, loss in enumerate(losses):
        seen = [0.0, *losses[:i]]
        mu = float(np.mean(seen))
        v = (0.25 + sum(d * d for d in losses[:i])) / len(seen) - mu * mu
        edge = x - mu
        wealth *= 1 + min(max(edge / (v + edge * edge), 0), 0.5 / (1 - x)) * (x - loss)
        wealths.append(wealth)
    assert np.exp(log_wealth(losses, x)[0]) == pytest.approx(wealths)
    assert judge(losses, x, 1e-9).wealth == pytest.approx(wealth)


@pytest.mark.parametrize(
    ("share_differing", "true_loss", "most_loss", "num"),
    [
        (0.1, 0.0, 0.02, 1521),
        (0.1, 0.0, 0.05, 260),
        (0.2, 0.02, 0.05, 1343),
        (0.05, 0.0, 0.02, 797),
    ],
)
def test_as_many_questions_are_needed_as_the_growth_of_the_best_stake_says(
    share_differing, true_loss, most_loss, num
):
    assert questions_needed(most_loss, 0.05, share_differing, true_loss) == num


def test_the_forecast_is_about_what_a_test_takes():
    losses = differences(np.random.default_rng(3), (200, 3000), 0.1, 0.0)
    verdicts, taken = first_verdicts(losses, 0.05, 0.05)
    assert (verdicts == VERDICTS.index("holds")).mean() > 0.9
    needed = questions_needed(0.05, 0.05, 0.1)
    assert 0.8 < np.median(taken) / needed < 1.3
    assert np.quantile(taken, 0.8) / needed < 2.5


def test_what_loses_as_much_as_the_bound_is_never_certified_in_the_forecast():
    assert questions_needed(0.02, 0.05, 0.1, 0.02) == float("inf")


def test_thirty_questions_certify_no_small_loss_even_if_no_answer_differs():
    assert judge(np.zeros(30), 0.05, 0.05).verdict == "open"
    assert judge(np.ones(30), 0.05, 0.05).verdict == "fails"
    assert least_questions(0.05, 0.05) > 30 >= least_questions(least_loss(30, 0.05), 0.05)
    assert least_loss(3, 0.05) is None


def test_the_least_questions_are_just_enough():
    num = least_questions(0.02, 0.05)
    assert judge(np.zeros(num), 0.02, 0.05).verdict == "holds"
    assert judge(np.zeros(num - 1), 0.02, 0.05).verdict == "open"


def test_a_certificate_stays():
    certified = judge(np.zeros(500), 0.1, 0.05)
    assert judge(np.append(np.zeros(500), np.ones(50)), 0.1, 0.05) == certified
    assert certified.verdict == "holds"
    assert certified.num < 500


@pytest.mark.parametrize("loss", [0.0, 0.1])
def test_each_bound_is_wrong_in_at_most_delta_of_the_worlds(loss):
    worlds = differences(np.random.default_rng(5), (15, 100), 0.2, loss)
    found = [bounds(losses, 0.1) for losses in worlds]
    assert np.mean([low > loss for low, _ in found]) <= 0.1
    assert np.mean([high < loss for _, high in found]) <= 0.1
    assert np.mean([high - low for low, high in found]) < 0.5


def test_the_upper_bound_and_the_verdict_agree():
    for losses in differences(np.random.default_rng(6), (10, 300), 0.1, 0.0):
        _, high = bounds(losses, 0.05)
        holds = judge(losses, 0.05, 0.05).verdict == "holds"
        assert holds == (high < 0.05) or abs(high - 0.05) < 0.0015


def test_no_question_says_nothing():
    assert judge(np.empty(0), 0.02, 0.05).verdict == "open"
    low, high = bounds(np.empty(0), 0.05)
    assert low < -0.99 < 0.99 < high
