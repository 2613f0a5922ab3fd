"""Laws of the faults: the code is to blame only for what no request explains."""

import pytest

from dynts_batch.runner.faults import Faults


def _verdict(*deaths: tuple[str, set[int]]) -> bool:
    faults = Faults()
    for error, units in deaths:
        faults.add(error, units)
    return faults.is_in_the_code


@pytest.mark.parametrize(
    ("is_in_the_code", "deaths"),
    [
        (True, [("E", {1, 2}), ("E", {3, 4}), ("E", {5})]),
        (True, [("E", {1, 2}), ("E", {1, 2}), ("E", {1}), ("E", {2})]),
        (
            True,
            [("E: 3 of 7 at 0x7f", {1}), ("E: 12 of 9 at 0xa0", {2}), ("E: 4 of 4 at 0x1", {3})],
        ),
        (True, [("E", set())] * 3),  # nothing was in flight
        (False, [("E", {1}), ("E", {2})]),
        (False, [("E", {1, 2}), ("E", {3, 2}), ("E", {2})]),  # it may be request 2
        (False, [("E", {1}), ("F", {2}), ("E", {3})]),
        (False, []),
    ],
)
def test_three_times_the_same_error_without_a_common_request(is_in_the_code, deaths):
    assert _verdict(*deaths) is is_in_the_code
