"""The key of a chart: each name as near to the end of its line as the others let it be."""

import numpy as np
import pytest

from dynts_batch.report.charts.key_column import Entry, spread


@pytest.mark.parametrize("seed", range(20))
def test_names_keep_their_order_and_never_overlap(seed: int) -> None:
    rng = np.random.default_rng(seed)
    heights = rng.uniform(8, 40, rng.integers(1, 25))
    space = heights.sum() * rng.uniform(1, 3)
    wanted = np.sort(rng.normal(space / 2, space / 4, len(heights)))
    places = spread(wanted, heights, space)
    bottoms, tops = places - heights / 2, places + heights / 2
    assert (bottoms[1:] >= tops[:-1] - 1e-9).all()
    assert bottoms[0] >= -1e-9
    assert tops[-1] <= space + 1e-9


def test_a_name_with_room_stands_at_the_end_of_its_line_and_neighbours_part_evenly() -> None:
    assert spread([20, 90], [10, 10], 100).tolist() == [20, 90]
    assert spread([50, 50, 90], [10, 20, 10], 100).tolist() == pytest.approx([42.5, 57.5, 90])
    assert spread([0, 99], [10, 10], 100).tolist() == [5, 95]


def test_a_long_name_breaks_before_an_option() -> None:
    entry = Entry("thinkv+survivors=importance+quantize=int4", 0.5, {})
    assert entry.text.split("\n") == ["thinkv", "+survivors=importance", "+quantize=int4"]
    assert Entry("dynts+quantize=int4", 0.5, {}).text == "dynts+quantize=int4"
