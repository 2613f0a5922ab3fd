"""Laws of stopping: it never promises a sample that could turn out not to be needed,
and the first decision stands."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynts_batch.config import SamplingConfig
from dynts_batch.errors import ConfigError
from dynts_batch.grading.stopping import Sample, Stopping
from dynts_batch.grading.votes import votes_missing, winner

SAMPLES = st.lists(st.sampled_from(["a", "a", "a", "b", "c", None]), max_size=24)


def _stopping(**changes) -> Stopping:
    made = Stopping.from_config(replace(SamplingConfig(num_samples=16), **changes))
    assert made is not None
    return made


@given(votes=SAMPLES, rule=st.sampled_from(["posterior", "evidence"]))
def test_no_vote_is_decided_before_as_many_more_as_are_said_to_be_missing(votes, rule):
    decided = [winner(votes[:num], rule, 0.95) is not None for num in range(len(votes) + 1)]
    for num, is_decided in enumerate(decided):
        missing = votes_missing(votes[:num], rule, 0.95)
        assert (missing == 0) == is_decided
        assert not any(decided[num : num + missing])


@pytest.mark.parametrize("split", [(0, 0), (3, 1), (4, 1), (5, 5)])
def test_the_posterior_says_exactly_how_many_more_votes_for_the_leader_decide(split):
    votes = ["a"] * split[0] + ["b"] * split[1]
    missing = votes_missing(votes, "posterior", 0.95)
    assert winner(votes + ["a"] * missing, "posterior", 0.95) == "a"
    assert winner(votes + ["a"] * (missing - 1), "posterior", 0.95) is None


@pytest.mark.parametrize(
    ("changes", "num_certain"),
    [
        ({"stop_when": "agreed"}, 4),
        ({"stop_when": "agreed", "stop_rule": "evidence"}, 7),
        ({"stop_when": "agreed", "stop_confidence": 0.99}, 6),
        ({"stop_when": "agreed", "stop_window": 5}, 5),
        ({"stop_when": "agreed", "stop_window": 12, "stop_confidence": 0.9999}, 16),
        ({"stop_when": "right"}, 1),
        ({"stop_when": "right", "stop_window": 4}, 4),
    ],
)
def test_so_many_samples_are_certain(changes, num_certain):
    assert _stopping(**changes).num_certain == num_certain


def test_a_right_sample_is_enough_and_nothing_else_is():
    stopping = _stopping(stop_when="right")
    wrong, right = Sample.of("7", correct=False), Sample.of("8", correct=True)
    assert stopping.num_missing([wrong] * 9) == 1
    assert stopping.num_missing([wrong, right]) == 0


def test_answers_agree_where_majority_says_that_they_are_one():
    samples = [Sample.of(text, correct=None) for text in ("5", "5.0", "$5$", r"\frac{10}{2}")]
    assert _stopping(stop_when="agreed").num_missing(samples) == 0


def test_a_most_that_no_vote_could_reach_is_refused():
    with pytest.raises(ConfigError, match=r"num_samples must be at least 7 .* by evidence at 0.95"):
        _stopping(stop_when="agreed", stop_rule="evidence", num_samples=6)
