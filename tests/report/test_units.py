"""Laws of the units: what is written reads as it should."""

import pytest

from dynts_batch.report.units import duration, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0:00"), (61, "1:01"), (3599.6, "1:00:00"), (90_000, "25:00:00")],
)
def test_durations_are_read_as_clocks(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 bytes"),
        (1023, "1,023 bytes"),
        (1536, "1.5 KiB"),
        (5 * 2**20, "5.0 MiB"),
        (3000 * 2**30, "3,000.0 GiB"),
    ],
)
def test_sizes_take_the_unit_that_fits(num_bytes, text):
    assert size(num_bytes) == text
