"""Laws of turns: which samples are run follows from what they say, not from when they end,
nor from who was there before."""

import random
from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from dynts_batch.grading.stopping import Sample, Stopping
from dynts_batch.runner.messages import Item
from dynts_batch.runner.worker.turns import Turns

NUM_QUESTIONS, NUM_SAMPLES = 3, 12
UNITS = range(NUM_QUESTIONS * NUM_SAMPLES)
ITEMS = [
    Item(unit, unit % NUM_SAMPLES, SimpleNamespace(index=unit // NUM_SAMPLES)) for unit in UNITS
]
SAMPLES = st.lists(
    st.sampled_from([Sample("a", True), Sample("a", True), Sample("b", False), Sample(None, False),
                     None]),
    min_size=len(UNITS), max_size=len(UNITS),
)  # fmt: skip
RULES = st.sampled_from(
    [
        *(Stopping("agreed", "posterior", 0.95, window, NUM_SAMPLES) for window in (1, 3, 5)),
        Stopping("agreed", "evidence", 0.9, 1, NUM_SAMPLES),
        Stopping("right", "posterior", 0.95, 1, NUM_SAMPLES),
    ]
)


def needed(stopping: Stopping, samples: list[Sample | None]) -> int:
    """How many of a question's samples are run:
    window after window, until one of their first parts decides."""
    for stop in range(stopping.window, NUM_SAMPLES, stopping.window):
        parts = (samples[:num] for num in range(stop + 1))
        if any(not stopping.num_missing([s for s in part if s is not None]) for part in parts):
            return stop
    return NUM_SAMPLES


def run_units(stopping: Stopping, samples: list[Sample | None]) -> set[int]:
    """The units of all questions that are run."""
    starts = range(0, len(UNITS), NUM_SAMPLES)
    return {
        start + index
        for start in starts
        for index in range(needed(stopping, samples[start : start + NUM_SAMPLES]))
    }


class Lease:
    """Runs what is due, in an order that is drawn, until nothing is or it breaks off."""

    def __init__(self, stopping, samples, held_back, rows):
        self._samples, self.rows = samples, rows
        self._turns = Turns(stopping, ITEMS, held_back)
        for unit in rows:
            self._turns.record(ITEMS[unit], samples[unit])
        self._running = []
        self._take(self._turns.due())

    def work(self, dice, num_steps):
        for _ in range(num_steps):
            if not self._running:
                return
            unit = self._running.pop(dice.randrange(len(self._running)))
            self.rows[unit] = "run"
            self._turns.record(ITEMS[unit], self._samples[unit])
            self._take(self._turns.due(ITEMS[unit].row.index))

    def _take(self, due):
        self._running += [item.unit for item in due.to_run]
        self.rows |= {item.unit: "skipped" for item in due.to_skip}


@given(stopping=RULES, samples=SAMPLES, seed=st.integers(0, 2**16))
def test_the_same_samples_are_run_however_they_end_and_however_often_that_breaks_off(
    stopping, samples, seed
):
    dice, rows = random.Random(seed), {}
    while len(rows) < len(UNITS):
        held_back = {unit for unit in UNITS if dice.random() < 0.1}
        Lease(stopping, samples, held_back, rows).work(dice, dice.randint(0, 20))
    expected = run_units(stopping, samples)
    assert rows == {unit: "run" if unit in expected else "skipped" for unit in UNITS}


@given(stopping=RULES, samples=SAMPLES, held=st.integers(0, len(UNITS) - 1))
def test_a_unit_that_is_held_back_holds_back_later_ones_of_its_question_only(
    stopping, samples, held
):
    rows = {}
    Lease(stopping, samples, {held}, rows).work(random.Random(0), len(UNITS))
    missing = set(UNITS) - rows.keys()
    question = held // NUM_SAMPLES
    if held not in run_units(stopping, samples):
        assert not missing  # nobody needs it
    else:
        assert held in missing
        assert {unit // NUM_SAMPLES for unit in missing} == {question}
        assert min(missing) == held


def test_without_a_rule_all_are_due_at_once_but_those_that_are_held_back():
    due = Turns(None, ITEMS, {3}).due()
    assert [item.unit for item in due.to_run] == [unit for unit in UNITS if unit != 3]
    assert not due.to_skip
