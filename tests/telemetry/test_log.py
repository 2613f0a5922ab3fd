"""One record is one line that can be parsed, whatever it holds."""

import logging
from collections.abc import Iterator

import pytest

from dynts_batch.telemetry import setup_logging


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    logger = logging.getLogger("dynts_batch")
    saved = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = saved


def test_a_record_is_one_line_of_keys_and_values(capsys) -> None:
    setup_logging("INFO", worker_id="w3")
    of_ray = {"_private_ns": 1}  # Ray puts such a one into every record
    extra = of_ray | {"request_id": "q 1\n2"}
    logging.getLogger("dynts_batch.engine").info("took %d s", 5, extra=extra)
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("time=")
    expected = ' level=info logger=dynts_batch.engine worker_id=w3 request_id="q 1\\n2"'
    assert line.endswith(expected + ' message="took 5 s"\n')


def test_an_exception_stays_on_the_line(capsys) -> None:
    setup_logging()
    try:
        raise KeyError("x")
    except KeyError:
        logging.getLogger("dynts_batch").exception("failed")
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "message=failed" in line
    assert "KeyError: 'x'" in line


def test_it_is_quiet_by_default_and_setting_up_again_replaces(capsys) -> None:
    setup_logging("DEBUG")
    setup_logging()
    logging.getLogger("dynts_batch").info("hello")
    logging.getLogger("dynts_batch").warning("beware")
    assert capsys.readouterr().err.count("\n") == 1


def test_other_loggers_are_left_alone() -> None:
    before = logging.getLogger().handlers[:]
    setup_logging()
    assert logging.getLogger().handlers == before


def test_an_unknown_level_is_an_error() -> None:
    with pytest.raises(ValueError, match="LOUD"):
        setup_logging("LOUD")
