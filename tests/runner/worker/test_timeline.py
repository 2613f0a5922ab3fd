"""A worker's telemetry: no sample is lost, however seldom it is written."""

from report_runs import SAMPLE

from dynts_batch.runner.worker.timeline import PART_ROWS, Timeline


def test_parts_that_fill_up_between_two_checkpoints_are_all_written() -> None:
    timeline = Timeline({"worker_id": "w-0"})
    num_added, written = 0, {}
    for count in (3, 2 * PART_ROWS, 1, PART_ROWS):
        for _ in range(count):
            timeline.add(SAMPLE | {"num_steps": num_added})
            num_added += 1
        written.update(timeline.take())
    assert sorted(written) == list(range(len(written)))
    steps = [step for part in sorted(written) for step in written[part]["num_steps"].to_pylist()]
    assert steps == list(range(num_added))
