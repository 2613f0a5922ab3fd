"""Laws of the status: what is done, what failed, how long still."""

import pytest

from dynts_batch.data.progress import Progress
from dynts_batch.report.status import render

PROGRESS = Progress(
    num_rows=1319,
    finished_rows=640,
    checkpointed_rows=7,
    failed_rows=3,
    num_shards=21,
    finished_shards=10,
    rows_per_s=0.5,
    idle_s=12.0,
    sealed=False,
)


def test_a_run_under_way_shows_its_pace_and_the_time_left():
    assert render("runs/r1", PROGRESS).splitlines() == [
        "run         runs/r1",
        "state       last wrote 0:12 ago",
        "rows done   640 of 1,319 (48.5%)",
        "shards      10 of 21",
        "failed      3",
        "in progress 7 rows of unfinished shards",
        "throughput  1,800 rows/h",
        "ETA         22:38",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"idle_s": None, "finished_rows": 0}, "state       no row yet"),
        ({"rows_per_s": None}, "throughput  n/a"),
        ({"sealed": True}, "state       finished"),
    ],
)
def test_what_is_unknown_or_over_is_said(changes, line):
    progress = Progress(**{**{f: getattr(PROGRESS, f) for f in PROGRESS.__match_args__}, **changes})
    assert line in render("runs/r1", progress).splitlines()
