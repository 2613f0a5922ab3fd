"""Laws of the progress display: quiet in a log file, and honest about what is unknown."""

import io

from rich.console import Console

from dynts_batch.runner.driver import display as display_module
from dynts_batch.runner.driver.display import Display, progress_line
from dynts_batch.runner.driver.state import State
from dynts_batch.runner.messages import Tally

TALLY = Tally(
    rows=50,
    errors=1,
    graded=40,
    correct=30,
    completion_tokens=20_000,
    stored_tokens=3_000,
    full_tokens=10_000,
    cost_usd=0.5,
)


def _state(tally: Tally = TALLY, num_done: int = 150, num_steps: int = 0) -> State:
    workers = {"num_workers": 2, "num_running": 64, "num_steps": num_steps}
    return State(1319, num_done, **workers, tally=tally, elapsed_s=100.0)


def test_a_line_says_rows_correct_speed_memory_cost_and_time_left():
    assert progress_line(_state()) == (
        "150/1,319 rows (11%) | 1 failed | correct 30/40 | 200 tokens/s | stored/total tokens 30%"
        " | $0.5000 | 64 running on 2 workers | ETA 38:58"
    )


def test_what_is_unknown_is_left_out():
    line = progress_line(_state(Tally(cost_usd=None), num_done=0))
    assert line == "0/1,319 rows (0%) | 0 tokens/s | 64 running on 2 workers | ETA ?"


def test_a_run_whose_first_rows_are_long_does_not_look_hung():
    line = progress_line(_state(Tally(), num_done=0, num_steps=1_200))
    assert "| 1,200 steps |" in line
    assert "1,200 steps" not in progress_line(_state(num_steps=1_200))


def test_a_log_file_gets_a_line_every_thirty_seconds_and_no_control_codes(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(display_module.time, "monotonic", lambda: now[0])
    file = io.StringIO()
    with Display(Console(file=file, width=60)) as display:
        for _ in range(600):
            now[0] += 0.11
            display.show(_state())
        display.note("[worker] died")
    lines = file.getvalue().splitlines()
    assert len(lines) == 3
    assert lines[-1] == "[worker] died"
    assert "\x1b" not in file.getvalue()


def test_a_terminal_gets_one_place_that_is_redrawn_and_cleared():
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=200)
    with Display(console) as display:
        display.show(_state())
        display.show(_state(num_done=151))
        display.note("a worker died")
    assert "151/1,319 rows" in file.getvalue()
    assert "a worker died" in file.getvalue()
