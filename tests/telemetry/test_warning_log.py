"""Laws of what is carried away from a process: each kind of warning once, and nothing else."""

import logging

from dynts_batch.telemetry import WarningLog


def test_the_first_warning_of_each_kind_is_taken_once():
    log, logger = WarningLog(), logging.getLogger("dynts_batch.somewhere")
    for row in range(3):
        logger.warning("refused row %d: %s", row, "it is\nbad")
    logger.error("lost")
    logging.getLogger("elsewhere").warning("not ours")
    logger.info("loaded")
    assert list(log.take().values()) == ["refused row 0: it is bad", "lost"]
    logger.warning("refused row %d: %s", 9, "again")
    logger.warning("%s", "x" * 10_000)
    (long,) = log.take().values()
    assert len(long) < 400
    log.close()
    logger.warning("after the end")
    assert not log.take()
