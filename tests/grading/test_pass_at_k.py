"""pass@k and majority@k equal the enumeration of every choice of k samples."""

from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dynts_batch.grading.pass_at_k import Vote, majority_at_k, pass_at_k

# An answer is right or wrong wherever it stands; "" stands for no answer.
VOTES = st.lists(st.sampled_from(["r", "s", "x", "y", ""]), min_size=1, max_size=8).map(
    lambda names: [(name or None, name in ("r", "s")) for name in names]
)


def _majority(votes: tuple[Vote, ...]) -> float:
    counts = Counter(vote for vote in votes if vote[0] is not None)
    first = [vote for vote, count in counts.items() if count == max(counts.values())]
    return sum(correct for _, correct in first) / len(first) if first else 0.0


@given(VOTES, st.integers(1, 8))
def test_majority_at_k_is_the_mean_over_all_choices(votes: list[Vote], k: int) -> None:
    k = min(k, len(votes))
    choices = [_majority(choice) for choice in combinations(votes, k)]
    assert majority_at_k(votes, k) == pytest.approx(sum(choices) / len(choices), abs=1e-12)


@given(st.integers(1, 12), st.data())
def test_pass_at_k_is_the_mean_over_all_choices(num_samples: int, data: st.DataObject) -> None:
    num_correct = data.draw(st.integers(0, num_samples))
    k = data.draw(st.integers(1, num_samples))
    samples = [True] * num_correct + [False] * (num_samples - num_correct)
    choices = [any(choice) for choice in combinations(samples, k)]
    assert pass_at_k(num_samples, num_correct, k) == pytest.approx(
        sum(choices) / len(choices), abs=1e-12
    )


def test_one_vote_is_the_mean_and_all_votes_are_the_plain_majority() -> None:
    votes: list[Vote] = [("5", True), ("5", True), ("6", False), (None, False)]
    assert majority_at_k(votes, 1) == pytest.approx(0.5)
    assert majority_at_k(votes, 4) == 1.0
    assert majority_at_k([(None, False)], 1) == 0.0


def test_64_samples_take_no_time() -> None:
    votes: list[Vote] = [(str(i % 9), i % 9 == 0) for i in range(64)]
    assert 0.0 < majority_at_k(votes, 32) < 1.0
