"""Laws of stopping: the first signal is a wish, the second an order."""

import os
import signal

import pytest

from dynts_batch.runner.worker.stop_signal import catch_stop_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_the_second_interrupts(number):
    with catch_stop_signals() as stop:
        assert not stop.is_set
        os.kill(os.getpid(), number)
        assert stop.number == number
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_former_handlers_come_back():
    former = signal.getsignal(signal.SIGTERM)
    with catch_stop_signals():
        assert signal.getsignal(signal.SIGTERM) is not former
    assert signal.getsignal(signal.SIGTERM) is former
