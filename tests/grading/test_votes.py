import random

import numpy as np
import pytest

from dynts_batch.grading.votes import fewest_votes, winner


@pytest.mark.parametrize(("rule", "num"), [("posterior", 4), ("evidence", 7)])
def test_so_many_equal_votes_decide(rule, num):
    assert fewest_votes(rule, 0.95) == num
    assert winner(["7"] * num, rule, 0.95) == "7"
    assert winner(["7"] * (num - 1), rule, 0.95) is None


@pytest.mark.parametrize("rule", ["posterior", "evidence"])
def test_a_split_vote_and_silence_decide_nothing(rule):
    assert winner([], rule, 0.95) is None
    assert winner([None] * 40, rule, 0.95) is None
    assert winner(["a", "b"] * 20, rule, 0.95) is None


@pytest.mark.parametrize("rule", ["posterior", "evidence"])
def test_a_clear_leader_wins_though_another_answer_came_first(rule):
    assert winner(["b", *["a"] * 20], rule, 0.95) == "a"


def test_the_posterior_is_that_of_adaptive_consistency():
    """Its chance is the share of Beta(first + 1, second + 1) above 1/2,
    summed here in small steps."""
    steps = (np.arange(200_000) + 0.5) / 200_000
    for first in range(1, 9):
        for second in range(first + 1):
            density = steps**first * (1 - steps) ** second
            share = density[steps > 0.5].sum() / density.sum()
            votes = ["a"] * first + ["b"] * second
            assert (winner(votes, "posterior", 0.9) is not None) == (share >= 0.9), votes


def test_one_more_vote_for_the_winner_changes_nothing():
    for rule in ("posterior", "evidence"):
        votes = ["b", None, *["a"] * 20]
        assert winner(votes, rule, 0.95) == winner([*votes, "a"], rule, 0.95) == "a"


def test_samples_without_an_answer_hold_the_evidence_up():
    assert winner(["a"] * 7 + [None] * 4, "evidence", 0.95) is None


@pytest.mark.parametrize(
    "shares",
    [
        {"a": 0.5, "b": 0.499},
        {"a": 0.34, "b": 0.33, "c": 0.33},
        {"a": 0.26, "b": 0.25, "c": 0.25, "d": 0.24},
        {"a": 0.45, "b": 0.4, None: 0.15},
    ],
    ids=str,
)
def test_the_evidence_names_another_answer_than_the_most_frequent_one_as_seldom_as_it_says(shares):
    """Looked at after every sample, on the questions where it is hardest."""
    dice, num_worlds, num_wrong = random.Random(0), 400, 0
    for _ in range(num_worlds):
        votes = []
        for vote in dice.choices(list(shares), list(shares.values()), k=30):
            votes.append(vote)
            if (found := winner(votes, "evidence", 0.9)) is not None:
                num_wrong += found != "a"
                break
    assert num_wrong / num_worlds <= 0.1
