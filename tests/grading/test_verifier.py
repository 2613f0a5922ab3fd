"""The bounded child: nothing in an answer, and nothing that happens to the child, stops a run."""

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from adversarial import adversarial_rows

from dynts_batch.grading import Grader
from dynts_batch.grading.verifier import Verifier

BOMB = "((9!)!)!"


@pytest.fixture
def verifier() -> Iterator[Verifier]:
    verifier = Verifier(timeout_s=30.0)
    yield verifier
    verifier.close()


def test_the_child_starts_with_the_first_use_and_ends_with_close(verifier: Verifier) -> None:
    assert verifier.child_pid is None
    assert verifier.verify("x+1", "1+x")
    pid = verifier.child_pid
    assert pid is not None
    assert psutil.pid_exists(pid)
    verifier.close()
    assert verifier.child_pid is None
    assert not psutil.pid_exists(pid)


def test_a_bomb_is_wrong_within_its_time_and_the_next_answer_is_judged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    verifier = Verifier(timeout_s=1.0)
    verifier.verify("x", "y")
    started_s = time.monotonic()
    assert not verifier.verify(BOMB, "5")
    assert time.monotonic() - started_s < 10.0
    assert "took over 1 s of CPU time: counted as wrong" in caplog.text
    verifier._timeout_s = 30.0  # a machine that is busy with other work takes longer than a second
    assert verifier.verify("x+1", "1+x")
    verifier.close()


def test_a_child_killed_between_two_rows_costs_neither(verifier: Verifier) -> None:
    assert verifier.verify("x+1", "1+x")
    assert verifier.child_pid is not None
    os.kill(verifier.child_pid, signal.SIGKILL)
    time.sleep(0.1)
    assert verifier.verify("x+2", "2+x")


def test_a_child_killed_in_the_middle_makes_that_row_wrong_and_the_next_one_right(
    verifier: Verifier,
) -> None:
    verifier.verify("x", "y")
    assert verifier.child_pid is not None
    killer = threading.Timer(0.5, os.kill, (verifier.child_pid, signal.SIGKILL))
    killer.start()
    started_s = time.monotonic()
    assert not verifier.verify(BOMB, "5")
    assert time.monotonic() - started_s < 10.0
    killer.join()
    assert verifier.verify("x+1", "1+x")


def test_only_its_own_time_counts() -> None:
    """On a machine that was busy with other work right answers were wrong."""
    verifier = Verifier(timeout_s=1.0)
    verifier.verify("x", "y")
    assert verifier.child_pid is not None
    os.kill(verifier.child_pid, signal.SIGSTOP)
    threading.Timer(2.0, os.kill, (verifier.child_pid, signal.SIGCONT)).start()
    assert verifier.verify("x+1", "1+x")
    verifier.close()


def test_a_stopped_child_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dynts_batch.grading.verifier._MOST_WAITING", 1)
    verifier = Verifier(timeout_s=1.0)
    verifier.verify("x", "y")
    assert verifier.child_pid is not None
    os.kill(verifier.child_pid, signal.SIGSTOP)
    assert not verifier.verify("x+1", "1+x")
    verifier._timeout_s = 30.0
    assert verifier.verify("x+1", "1+x")
    verifier.close()


def test_ctrl_c_leaves_the_child_to_its_parent(verifier: Verifier) -> None:
    """A terminal sends SIGINT to the whole group; a draining worker still has rows to judge."""
    verifier.verify("x", "y")
    pid = verifier.child_pid
    assert pid is not None
    os.kill(pid, signal.SIGINT)
    assert verifier.verify("x+1", "1+x")
    assert verifier.child_pid == pid


def test_it_works_off_the_main_thread(verifier: Verifier) -> None:
    verdicts: list[bool] = []
    threads = [
        threading.Thread(target=lambda: verdicts.append(verifier.verify("x+1", "1+x")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verdicts == [True, True, True]


@pytest.mark.parametrize("answer", ["x", BOMB], ids=["idle", "computing"])
def test_the_child_does_not_outlive_a_killed_parent(answer: str) -> None:
    script = (
        "from dynts_batch.grading.verifier import Verifier\n"
        "verifier = Verifier(timeout_s=1.0)\n"
        "while verifier.child_pid is None:  # on a busy machine a second may be too short\n"
        "    verifier.verify('x', 'y')\n"
        "print(verifier.child_pid, flush=True)\n"
        f"verifier.verify({answer!r}, '5')\n"
        "input()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        time.sleep(0.3)
        parent.kill()
    child.wait(timeout=10.0)


def test_the_child_imports_neither_torch_nor_ray(verifier: Verifier) -> None:
    verifier.verify("x+1", "1+x")
    maps = psutil.Process(verifier.child_pid).memory_maps()
    assert not [entry.path for entry in maps if "/torch/" in entry.path or "/ray/" in entry.path]


def test_a_verdict_does_not_depend_on_chance_or_on_the_rows_before(verifier: Verifier) -> None:
    """sympy finds a product of infinities equal to 3 in one of a hundred random orders."""
    assert not any(verifier.verify(str(number), r"\infty" * 40) for number in range(150))
    pairs = [("3", r"\infty" * 40), ("x^2-1", "(x-1)(x+1)"), ("3", r"\infty\cdot\infty")]
    forwards = [verifier.verify(*pair) for pair in pairs]
    verifier.close()
    assert [verifier.verify(*pair) for pair in reversed(pairs)] == forwards[::-1]


@pytest.mark.parametrize(
    ("function", "module"), [("math-verify", "math_verify"), ("my.grading:judge", "my.grading")]
)
def test_a_child_that_cannot_start_is_an_error_that_names_whose_it_is(
    function: str, module: str, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    """A user's own grader was called math-verify's process."""
    monkeypatch.setattr("dynts_batch.grading.verifier._CHILD", tmp_path / "missing.py")
    with pytest.raises(RuntimeError, match=f"process of {function} .* -c 'import {module}'"):
        Verifier(5.0, function).verify("x", "y")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("every", [10, pytest.param(1, marks=pytest.mark.long)])
def test_of_a_thousand_adversarial_rows_each_ends_within_its_bound(every: int) -> None:
    """Some sixty children are killed and started again: a minute on idle cores."""
    slowest_s = 0.0
    with Grader("math", timeout_s=0.5) as grader:
        for answer, reference in itertools.islice(adversarial_rows(1_000), 0, None, every):
            grader._verifier.start()  # the child that the row before cost is no time of this one
            started_s = time.monotonic()
            assert grader.grade(answer, reference).correct is not True, (answer, reference)
            slowest_s = max(slowest_s, time.monotonic() - started_s)
    assert slowest_s < 10.0  # a machine that is busy with other work wakes this process late
