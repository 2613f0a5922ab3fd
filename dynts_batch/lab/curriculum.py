"""What the embedded model is trained on, and in which order.

A small transformer that sees whole problems from the start learns no look-ups. So the stages teach
them one at a time. The trainer moves on when the measured accuracy of a stage allows it. Batches
are drawn from (seed, stage, step), so a resumed training sees the same ones as an uninterrupted
training.

Knows nothing about models or optimisers.
"""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from transformers import PreTrainedTokenizerBase

from dynts_batch.engine.model.think_tags import THINK
from dynts_batch.lab.problems import LETTERS, MAX_VALUE, Phrase, Problem, generate_problem
from dynts_batch.lab.tokenizer import END

#: Loss weight of words that carry no fact. It is enough to learn the prose and not to drown the
#: facts.
PROSE_WEIGHT = 0.2


#: (token id, loss weight, decisive, lasting)
Token = tuple[int, float, bool, bool]
#: A mark of `Phrase`.
Lasting = Literal["fact", "value"]


@dataclass(frozen=True)
class Stage:
    """One lesson.

    `recall`, `arithmetic` and `copying` are the shares of the drills, and `terse` that of traces
    without digressions. The rest are whole traces of `min_steps`..`max_steps` derived letters. The
    lesson ends when the accuracy over the last hundred batches reaches `target`, or after
    `max_tokens`. `decay`: the learning rate falls to zero over `max_tokens`.
    """

    name: str
    recall: float
    arithmetic: float
    copying: float
    terse: float
    min_steps: int
    max_steps: int
    target: float
    max_tokens: int
    decay: bool = False
    lasting: Lasting | None = None
    """The old tokens of a trace that are never hidden; the model learns to need no others. None:
    no token is hidden."""


_FORGETFUL = Stage("forgetful", 0.02, 0.03, 0.05, 0.05, 2, 15, 0.9995, 2_000_000, lasting="fact")

#: The last lesson is given twice, each time down to a learning rate of zero (warm restarts, arXiv
#: 1608.03983). The second time the names before the values are hidden too. A model that finds
#: values by their names needs tokens to which its answer does not attend, because the answer
#: recites only values. No predictor of the answer's attention could tell that they must stay.
STAGES = (
    Stage("recall", 1.0, 0.0, 0.0, 0.0, 0, 0, 0.98, 10_000_000),
    Stage("terse", 0.05, 0.3, 0.25, 0.4, 1, 8, 0.97, 10_000_000),
    Stage("short", 0.03, 0.12, 0.1, 0.25, 1, 6, 0.985, 5_000_000),
    Stage("long", 0.02, 0.03, 0.05, 0.1, 2, 15, 0.9995, 8_000_000),
    _FORGETFUL,
    replace(_FORGETFUL, target=math.inf, max_tokens=6_000_000, decay=True),
    replace(_FORGETFUL, lasting="value"),
    replace(_FORGETFUL, lasting="value", target=math.inf, max_tokens=3_000_000, decay=True),
)


@dataclass(frozen=True)
class Batch:
    """One batch of training rows.

    token_ids: [rows, length] int64, right-padded.
    weights: [rows, length] float32, the loss weight of *predicting* each token.
    decisive: [rows, length] bool, the tokens on which accuracy is measured.
    lasting: [rows, length] bool, the tokens that are never hidden.
    """

    token_ids: torch.Tensor
    weights: torch.Tensor
    decisive: torch.Tensor
    lasting: torch.Tensor


class BatchSampler:
    """Draws a step's batch: one kind of exercise and one number of steps, so little is padding."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, seed: int, tokens_per_batch: int
    ) -> None:
        self._tokenizer = tokenizer
        self._seed = seed
        self._tokens_per_batch = tokens_per_batch
        self._encode = lru_cache(maxsize=None)(lambda text: tuple(tokenizer.encode(text)))
        self._pad_token_id = tokenizer.pad_token_id

    def draw(self, stage: Stage, step: int) -> Batch:
        rng = random.Random(f"{self._seed}-{stage.name}-{step}")
        kind = rng.random()
        num_steps = rng.randint(stage.min_steps, stage.max_steps)
        examples: list[list[Token]] = []
        longest = 0
        while (len(examples) + 1) * longest <= self._tokens_per_batch:
            problem = generate_problem(rng, "hard", num_steps) if num_steps else None
            example = self._draw_example(rng, stage, kind, problem)
            longest = max(longest, len(example))
            examples.append(example)
        return self._collate(examples, longest)

    def _draw_example(
        self, rng: random.Random, stage: Stage, kind: float, problem: Problem | None
    ) -> list[Token]:
        """An example of the exercise that the uniform draw `kind` falls on."""
        if kind < (share := stage.recall):
            return self._example(_recall_drill(rng))
        if kind < (share := share + stage.arithmetic):
            return self._example(_arithmetic_drill(rng))
        assert problem is not None, "a stage with problems says how long they are"
        if kind < (share := share + stage.copying):
            return self._prompt(f"{problem.question} Copy the rules.") + self._example(
                _copying(problem)
            )
        is_terse = kind < share + stage.terse
        question = f"{problem.question} Be brief." if is_terse else problem.question
        reasoning = self._example(problem.reasoning(terse=is_terse), stage.lasting)
        return self._prompt(question) + reasoning + self._answer(problem)

    def _answer(self, problem: Problem) -> list[Token]:
        """`</think>`, the answer and the end of the sequence."""
        think_end, end = Phrase(THINK.end, decisive=True), Phrase(END, decisive=True)
        return self._example([think_end, *problem.conclusion(), end])

    def _prompt(self, question: str) -> list[Token]:
        """The question in the chat template, without loss."""
        messages = [{"role": "user", "content": question}]
        prompt = self._tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=True
        )
        return [(token, 0.0, False, True) for token in self._tokenizer.encode(prompt)]

    def _example(self, phrases: Iterable[Phrase], lasting: Lasting | None = None) -> list[Token]:
        return [
            (
                token,
                1.0 if phrase.decisive else PROSE_WEIGHT,
                phrase.decisive,
                lasting is None or getattr(phrase, lasting),
            )
            for phrase in phrases
            for token in self._encode(phrase.text)
        ]

    def _collate(self, examples: list[list[Token]], longest: int) -> Batch:
        padding = (self._pad_token_id, 0.0, False, True)
        rows = [example + [padding] * (longest - len(example)) for example in examples]
        columns = zip(*(zip(*row, strict=True) for row in rows), strict=True)
        return Batch(*(torch.tensor(column) for column in columns))


def _recall_drill(rng: random.Random) -> Iterable[Phrase]:
    """Facts in random order, then the same letters again and again. Mostly the answers count."""
    names = rng.sample(LETTERS, rng.choice((2, 3, 4, 5, 12)))
    values = {name: rng.randint(0, MAX_VALUE) for name in names}
    for name in names:
        yield Phrase(f" {name}")
        yield Phrase(f" {values[name]}")
        yield Phrase(",")
    for _ in range(3):
        for name in rng.sample(names, len(names)):
            yield Phrase(f" {name}")
            yield Phrase(f" {values[name]}", decisive=True)
            yield Phrase(",")


def _copying(problem: Problem) -> Iterable[Phrase]:
    """The rules of the question, line by line. Only the sign counts: it is the hardest to find."""
    for step in problem.steps:
        yield Phrase(f"\n {step.name} = {step.left}")
        yield Phrase(f" {step.op}", decisive=True)
        yield Phrase(f" {step.right}")


def _arithmetic_drill(rng: random.Random) -> Iterable[Phrase]:
    for _ in range(16):
        a = rng.randint(0, MAX_VALUE)
        op = rng.choice("+-")
        b = rng.randint(0, MAX_VALUE - a) if op == "+" else rng.randint(0, a)
        yield Phrase(f" so {a} {op} {b} =")
        yield Phrase(f" {a + b if op == '+' else a - b}", decisive=True)
        yield Phrase(",")
