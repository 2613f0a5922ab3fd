"""Laws of how a job ends: a status for every outcome, and one line for a user's mistake."""

import pytest

from dynts_batch.errors import ConfigError, DyntsError, InputError, RunDirError
from dynts_batch.exit_status import exit_status_of


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("no such key"), 2, "error: no such key"),
        (InputError("no such file"), 2, "error: no such file"),
        (RunDirError("not writable"), 2, "error: not writable"),
        (DyntsError("all died"), 1, "error: all died. Go on"),
        (KeyboardInterrupt(), 130, "interrupted. Go on"),
    ],
)
def test_an_error_is_one_line_and_a_status(error, status, line, capsys):
    def job():
        raise error

    assert exit_status_of(job, hint="Go on") == status
    assert capsys.readouterr().err == f"{line}\n"


def test_the_jobs_own_status_passes_through():
    assert exit_status_of(lambda: 3) == 3


def test_our_own_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_status_of(lambda: 1 // 0)
