"""The built-in reasoning task: seeded multi-step problems with checkable answers and worked traces.

A problem is a straight-line program over letters. Some letters are given, and every other letter is
a sum or a difference of earlier ones. The question joins the last two letters that nothing else
used.

The worked trace derives one letter a line. The line states the letter's value once; a re-check and
a digression follow. The value is next needed several lines, so hundreds of tokens, later. After
`</think>` the answer recaps every value it rests on and ends in `\\boxed{}`. So an eviction policy
that forgets a value gets the answer wrong, and one that keeps the digressions has no room for the
values.

Operands come from a queue of unused letters, the oldest first with probability `OLDEST_FIRST`. This
makes every letter an ancestor of the answer. It also sets the distance between a value's statement
and its use.

Knows nothing about tokens or models. `Phrase.decisive` only says which words carry a fact or choose
an operand.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

MAX_VALUE = 29
LETTERS = "abcdefghijklmnopqrstuvwxyz"
OLDEST_FIRST = 0.75
#: How many letters to derive, inclusive, by difficulty.
NUM_STEPS = {"easy": (4, 5), "medium": (6, 9), "hard": (10, 14)}

#: The trace's musings after a step. `{value}`, `{parity}` and `{other}` come from the step.
DIGRESSIONS = (
    " Hmm, maybe there is a faster way to see all of this at once. If I draw it as a tree, the"
    " leaves are given and the rest hangs from them, but drawing takes longer than just going on.",
    " Is{value} even or odd? It is {parity}, and that tells me nothing here, since no rule in the"
    " question depends on it, so I drop the thought and return to the list.",
    " Alternatively I could guess the end and work back from there, but a guess needs every number"
    " anyway, so nothing is gained, and I stay with the plan as it was.",
    " Let me reread the question. It asks for two letters at the end, and everything before is"
    " only needed to get there, so one by one is the honest way to do it.",
    " Could a sign be wrong somewhere? Plus means more and minus means less, the number went the"
    " way it should, so I do not see a mistake in this line, and I can move on.",
    " I wonder whether all of these stay below thirty. So far they do, and small numbers are easy"
    " to add, which is good, because the list is long and I should not hurry.",
    " What if the result had been{other} instead? Then the rest would shift too, but that is not"
    " what is written in the question, so forget it and take the next one.",
)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A piece of a trace.

    decisive: it states a fact or chooses an operand.
    aside: it is a digression or a re-check.
    fact: it belongs to the statement of a value that later lines need.
    value: it is that value.
    """

    text: str
    decisive: bool = False
    aside: bool = False
    fact: bool = False
    value: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """`name = left op right`. An operand is a letter or a number."""

    name: str
    left: str | int
    op: str
    right: str | int

    def __str__(self) -> str:
        return f"{self.name} = {self.left} {self.op} {self.right}"


@dataclass(frozen=True)
class Problem:
    """One problem: given letters, steps in order, and the question `left op right`."""

    difficulty: str
    given: tuple[tuple[str, int], ...]
    steps: tuple[Step, ...]
    asked: tuple[str, str, str]

    @cached_property
    def values(self) -> dict[str, int]:
        """The value of every letter, in the order of the text."""
        values = dict(self.given)
        for step in self.steps:
            values[step.name] = _apply(
                step.op, *(_value(x, values) for x in (step.left, step.right))
            )
        return values

    @property
    def answer(self) -> int:
        left, op, right = self.asked
        return _apply(op, self.values[left], self.values[right])

    @property
    def question(self) -> str:
        lines = [f"{name} = {value}" for name, value in self.given] + [
            str(step) for step in self.steps
        ]
        return f"Let {', '.join(lines)}. What is {' '.join(self.asked)}?"

    def reasoning(self, *, terse: bool = False) -> Iterator[Phrase]:
        """The worked trace between the tags. `terse` leaves out re-checks and digressions."""
        yield Phrase(" Given")
        yield from _listing(self.given)
        for step in self.steps:
            yield Phrase("\n", decisive=True)  # the alternative is the end of thinking
            yield from self._derivation(step)
            if not terse:
                yield from self._recheck(step)
                yield from self._digression(step)
            yield Phrase(" So", aside=True)
            yield Phrase(f" {step.name}", decisive=True, aside=True)
            yield Phrase(" is done.", aside=True)

    def conclusion(self) -> Iterator[Phrase]:
        """The answer after `</think>`: a recap of every value, then the boxed result."""
        yield Phrase(" Recap")
        yield from _listing(self.values.items())
        yield Phrase("\n")
        left, op, right = self.asked
        for text in (left, op, right):
            yield Phrase(f" {text}", decisive=True)
        yield from self._working(left, op, right)
        yield Phrase(". The answer is \\boxed{")
        yield Phrase(f"{self.answer}", decisive=True)
        yield Phrase("}.")

    def _derivation(self, step: Step) -> Iterator[Phrase]:
        for text in str(step).split(" "):
            yield Phrase(f" {text}", decisive=True)
        yield from self._working(step.left, step.op, step.right)
        yield Phrase(",")
        yield Phrase(f" {step.name}", decisive=True, fact=True)
        yield Phrase(f" {self.values[step.name]}", decisive=True, fact=True, value=True)
        yield Phrase(".")

    def _working(self, left: str | int, op: str, right: str | int) -> Iterator[Phrase]:
        """`: k 12, n 5, so 12 + 5 = 17`, with the values of those operands that are letters."""
        operands = (left, right)
        yield Phrase(":")
        for name in operands:
            if isinstance(name, str):
                yield Phrase(f" {name}", decisive=True)
                yield Phrase(f" {self.values[name]}", decisive=True)
                yield Phrase(",")
        a, b = (_value(x, self.values) for x in operands)
        yield Phrase(" so")
        for text in (a, op, b):
            yield Phrase(f" {text}", decisive=True)
        yield Phrase(" =")
        yield Phrase(f" {_apply(op, a, b)}", decisive=True)

    def _recheck(self, step: Step) -> Iterator[Phrase]:
        """One of three re-checks. The step's value chooses, so greedy decoding shows all three."""
        a, b = (_value(x, self.values) for x in (step.left, step.right))
        c = self.values[step.name]
        match c % 3:
            case 0:
                inverse = "-" if step.op == "+" else "+"
                words = (
                    f" Wait, let me check it backwards: {c} {inverse} {b} = {a}, and that matches."
                )
            case 1 if step.op == "+":
                words = (
                    f" Hmm, would the other order change it? {b} + {a} = {c}, no, it is the same."
                )
            case 1:
                words = (
                    f" Hmm, how far apart are they? From {b} to {a} it is {c}, so yes, it is right."
                )
            case _:
                between = range(a, c + 1) if c >= a else range(a, c - 1, -1)
                listed = ", ".join(str(x) for x in between)
                words = f" Let me count slowly: {listed}. Good."
        yield Phrase(words, aside=True)

    def _digression(self, step: Step) -> Iterator[Phrase]:
        value = self.values[step.name]
        text = DIGRESSIONS[value % len(DIGRESSIONS)].format(
            value=f" {value}",
            parity="even" if value % 2 == 0 else "odd",
            other=f" {(value + 2) % (MAX_VALUE + 1)}",
        )
        yield Phrase(text, aside=True)


def generate_problem(rng: random.Random, difficulty: str, num_steps: int | None = None) -> Problem:
    """Draw one problem. The curriculum overrides the difficulty's range by `num_steps`.

    Raises: KeyError for an unknown difficulty.
    """
    if num_steps is None:
        num_steps = rng.randint(*NUM_STEPS[difficulty])
    num_joins = rng.randint(min(1, num_steps), min(4, 1 + num_steps // 3))
    num_given = 2 + num_joins
    first = rng.randrange(len(LETTERS) - num_given - num_steps + 1)
    names = iter(LETTERS[first:])
    given = tuple((next(names), rng.randint(2, 20)) for _ in range(num_given))
    values, unused = dict(given), [name for name, _ in given]
    joins = set(rng.sample(range(num_steps), num_joins))
    steps = []
    for index in range(num_steps):
        step = _draw_step(rng, next(names), values, unused, join=index in joins)
        values[step.name] = _apply(step.op, *(_value(x, values) for x in (step.left, step.right)))
        unused.append(step.name)
        steps.append(step)
    left, right = unused
    return Problem(difficulty, given, tuple(steps), _combine(rng, left, right, values))


def problem_set(seed: int, num_problems: int) -> list[Problem]:
    """`num_problems` distinct problems, with the difficulties in equal shares."""
    rng = random.Random(f"problems-{seed}")
    difficulties = list(NUM_STEPS)
    problems: dict[str, Problem] = {}
    while len(problems) < num_problems:
        problem = generate_problem(rng, difficulties[len(problems) % len(difficulties)])
        problems.setdefault(problem.question, problem)
    return list(problems.values())


def _draw_step(
    rng: random.Random, name: str, values: dict[str, int], unused: list[str], *, join: bool
) -> Step:
    """The next step. Its operands are taken out of `unused`."""
    left = _take(rng, unused)
    if join:
        return Step(name, *_combine(rng, left, _take(rng, unused), values))
    value = values[left]
    choices = [("+", k) for k in range(1, 10) if value + k <= MAX_VALUE]
    choices += [("-", k) for k in range(1, 10) if value - k >= 0]
    return Step(name, left, *rng.choice(choices))


def _take(rng: random.Random, unused: list[str]) -> str:
    return unused.pop(0 if rng.random() < OLDEST_FIRST else rng.randrange(len(unused)))


def _combine(rng: random.Random, a: str, b: str, values: dict[str, int]) -> tuple[str, str, str]:
    """`a op b` with a result in 0..MAX_VALUE. A difference has its larger operand first."""
    if values[a] < values[b]:
        a, b = b, a
    add = values[a] + values[b] <= MAX_VALUE and rng.random() < 0.5
    return (a, "+", b) if add else (a, "-", b)


def _listing(pairs: Iterable[tuple[str, int]]) -> Iterator[Phrase]:
    """`k 7, l 4.`"""
    for index, (name, value) in enumerate(pairs):
        if index:
            yield Phrase(",", decisive=True)
        yield Phrase(f" {name}", decisive=True, fact=True)
        yield Phrase(f" {value}", decisive=True, fact=True, value=True)
    yield Phrase(".", decisive=True)


def _value(operand: str | int, values: dict[str, int]) -> int:
    return values[operand] if isinstance(operand, str) else operand


def _apply(op: str, a: int, b: int) -> int:
    return a + b if op == "+" else a - b
