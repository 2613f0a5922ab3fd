"""Selection against a plain-Python reference, on random ragged batches with ties: in C as in
torch."""

import random

import pytest
import torch

from dynts_batch.kvcache.select import all_but, select, share_of_candidates

pytestmark = pytest.mark.usefixtures("written_in")


def reference(
    scores: list[float], cache_len: int, num_first: int, num_last: int, num_kept: int
) -> list[int]:
    candidates = range(num_first, cache_len - num_last)
    best = sorted(candidates, key=lambda slot: (-scores[slot], slot))[:num_kept]
    return sorted([*range(num_first), *best, *range(cache_len - num_last, cache_len)])


@pytest.mark.parametrize("seed", range(20))
def test_select_equals_the_plain_reference(seed: int) -> None:
    rng = random.Random(seed)
    rows, layers, heads, num_slots = rng.randint(1, 5), rng.randint(1, 3), rng.randint(1, 3), 40
    # Few distinct values, so that ties are common.
    scores = torch.tensor(
        [rng.randint(0, 5) for _ in range(rows * layers * heads * num_slots)]
    ).float()
    scores = scores.view(rows, layers, heads, num_slots)
    counts = []
    for _ in range(rows):
        cache_len = rng.randint(10, num_slots)
        num_first = rng.randint(0, 4)
        num_last = rng.randint(0, cache_len - num_first - 1)
        num_candidates = cache_len - num_first - num_last
        counts.append(
            (cache_len, num_first, num_last, share_of_candidates(num_candidates, rng.random()))
        )
    stays = select(scores, *(torch.tensor(column) for column in zip(*counts, strict=True)))
    for row, (cache_len, num_first, num_last, num_kept) in enumerate(counts):
        for layer in range(layers):
            for head in range(heads):
                expected = reference(
                    scores[row, layer, head].tolist(), cache_len, num_first, num_last, num_kept
                )
                assert stays[row, layer, head].nonzero().flatten().tolist() == expected


def test_infinite_and_very_negative_scores_are_scores_not_a_protocol() -> None:
    scores = torch.tensor([[[[torch.inf, -torch.inf, -torch.inf, 0.0, 5.0]]]])
    stays = select(scores, *(torch.tensor([n]) for n in (5, 0, 1, 3)))
    assert stays[0, 0, 0].nonzero().flatten().tolist() == [0, 1, 3, 4]
    # Behind protected slots, which have no scores, they would stay too few.
    scores = torch.full((1, 1, 1, 10), -torch.inf)
    scores[..., 5] = 1
    stays = select(scores, *(torch.tensor([n]) for n in (10, 2, 2, 4)))
    assert stays[0, 0, 0].nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5, 8, 9]


def test_counts_beyond_what_is_stored_keep_what_is_stored() -> None:
    """As a policy of somebody else may give them."""
    counts = [(4, 0, 6, 1), (5, 8, 2, 1), (3, 12, 0, 1), (6, 1, 1, 0)]
    columns = (torch.tensor(column) for column in zip(*counts, strict=True))
    stays = select(torch.randn(4, 1, 1, 10), *columns)[:, 0, 0]
    kept = [row.nonzero().flatten().tolist() for row in stays]
    assert kept == [[0, 1, 2, 3], [0, 1, 2, 3, 4], [0, 1, 2], [0, 5]]
    assert select(torch.randn(0, 1, 1, 10), *torch.zeros(4, 0, dtype=torch.int64)).shape[0] == 0


def test_scores_of_either_sign_are_ordered_and_no_number_is_the_largest() -> None:
    scores = torch.tensor([[[[-2.0, torch.nan, -0.0, 0.0, 3e-39, -1e38, torch.inf, -1.5, 2.0]]]])
    ranking = [1, 6, 8, 4, 2, 3, 7, 0, 5]
    for kept in range(9):
        stays = select(scores, *(torch.tensor([n]) for n in (9, 0, 0, kept)))
        assert stays[0, 0, 0].nonzero().flatten().tolist() == sorted(ranking[:kept])


@pytest.mark.parametrize(
    ("num_candidates", "keep_ratio", "kept"),
    [(10, 0.3, 3), (10, 0.39, 3), (1, 0.9, 0), (7, 1.0, 6)],
)
def test_the_kept_share_is_rounded_down_and_something_always_goes(
    num_candidates: int, keep_ratio: float, kept: int
) -> None:
    assert share_of_candidates(num_candidates, keep_ratio) == kept


@pytest.mark.parametrize(
    ("num_candidates", "interval", "kept"), [(10, 3, 7), (10, 10, 0), (1, 5, 0), (7, 1, 6)]
)
def test_an_interval_goes_or_all_candidates_where_there_are_fewer(
    num_candidates: int, interval: int, kept: int
) -> None:
    assert all_but(num_candidates, interval) == kept
