import numpy as np
import pytest

from dynts_batch.report.betting import LossTest, questions_needed


def differences(rng, num, share_differing, loss):
    """Per question, full minus candidate: 1, -1 or 0."""
    worse, better = (share_differing + loss) / 2, (share_differing - loss) / 2
    return rng.choice([1.0, -1.0, 0.0], size=num, p=[worse, better, 1 - share_differing])


@pytest.mark.parametrize("share_differing", [0.05, 0.2, 0.5])
def test_a_loss_at_the_bound_is_certified_in_at_most_delta_of_the_worlds(share_differing):
    """Looked at after every question, where it is hardest: the true loss is exactly the bound."""
    rng, num_worlds = np.random.default_rng(0), 400
    wrong = sum(
        LossTest(0.05, 0.1).extend(differences(rng, 600, share_differing, 0.05)).verdict == "holds"
        for _ in range(num_worlds)
    )
    assert wrong / num_worlds <= 0.1


def test_a_harmless_candidate_is_called_failing_in_at_most_delta_of_the_worlds():
    rng, num_worlds = np.random.default_rng(1), 400
    wrong = sum(
        LossTest(0.05, 0.1).extend(differences(rng, 600, 0.2, 0.05)).verdict == "fails"
        for _ in range(num_worlds)
    )
    assert wrong / num_worlds <= 0.1


def test_the_wealth_is_that_of_the_definition():
    """methods: W *= 1 + l (x - D), l = clip((x - mu) / (v + (x - mu)^2), 0, .5 / (1 - x)), from earlier D only."""
    rng, x = np.random.default_rng(2), 0.03
    losses = differences(rng, 200, 0.3, 0.0)
    wealth = 1.0
    for i, loss in enumerate(losses):
        seen = [0.0, *losses[:i]]
        mu = float(np.mean(seen))
        v = (0.25 + sum(d * d for d in losses[:i])) / len(seen) - mu * mu
        edge = x - mu
        wealth *= 1 + min(max(edge / (v + edge * edge), 0), 0.5 / (1 - x)) * (x - loss)
    test = LossTest(x, 1e-9)
    for loss in losses:
        test.add(loss)
    assert test.wealth == pytest.approx(wealth)


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
    found = questions_needed(most_loss, 0.05, share_differing, true_loss)
    assert found == pytest.approx(num, rel=0.01)


def test_the_forecast_is_about_what_a_test_takes():
    rng = np.random.default_rng(3)
    taken = [LossTest(0.05, 0.05).extend(differences(rng, 5000, 0.1, 0.0)).num for _ in range(100)]
    assert 0.5 < np.median(taken) / questions_needed(0.05, 0.05, 0.1) < 1.6


def test_what_loses_as_much_as_the_bound_is_never_certified_in_the_forecast():
    assert questions_needed(0.02, 0.05, 0.1, 0.02) == float("inf")


def test_thirty_questions_certify_no_small_loss_even_if_no_answer_differs():
    assert LossTest(0.05, 0.05).extend([0.0] * 30).verdict == "open"
    assert LossTest(0.05, 0.05).extend([1.0] * 30).verdict == "fails"


def test_a_certificate_stays():
    test = LossTest(0.1, 0.05).extend([0.0] * 500)
    assert test.verdict == "holds"
    for _ in range(50):
        test.add(1.0)
    assert test.verdict == "holds"
