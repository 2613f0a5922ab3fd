"""A row's text as pieces for the page: prompt, thinking and answer, and what became of each.

Knows nothing about HTML: the page's template writes, and escapes, every piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

Part = Literal["prompt", "thinking", "answer"]

MAX_CHARS = 200_000
"""Longest text. Longer ones are cut, and the page says so."""
_MAX_TOKENS = 24  # of a piece, which appears at once in the replay


@dataclass(frozen=True, slots=True)
class Piece:
    """Neighbouring tokens that stay or go together."""

    part: Part
    text: str
    start: int
    """Position of the first token."""
    evicted_at: int | None
    """Length of the sequence when the last layer and head dropped them; None: never."""
    kept_share: int
    """Percent of the layers and heads that hold them at the end."""


@dataclass(frozen=True)
class TraceView:
    """One row. `pieces` is empty if no trace was recorded: then there are only texts."""

    row: dict[str, Any]
    pieces: tuple[Piece, ...]
    num_tokens: int
    moments: tuple[int, ...]
    """Lengths of the sequence at which something was evicted."""
    is_per_head: bool
    """Whether layers and heads keep different tokens."""

    @property
    def num_kept(self) -> int:
        """Tokens that any layer or head holds at the end."""
        trace = self.row["token_trace"]
        return sum(at is None for at in trace["evicted_at"]) if trace else self.num_tokens


def view_trace(row: dict[str, Any], prompt_tokens: int, reasoning_tokens: int) -> TraceView:
    """`row` has the columns of RunRows.texts. The counts are that row's."""
    trace = row["token_trace"]
    if trace is None:
        return TraceView(row, (), prompt_tokens, (), is_per_head=False)
    answer_start = prompt_tokens + reasoning_tokens
    moments = sorted({at for at in trace["evicted_at"] if at is not None})
    return TraceView(
        row=row,
        pieces=tuple(_pieces(trace, prompt_tokens, answer_start)),
        num_tokens=len(trace["token_texts"]),
        moments=tuple(moments),
        is_per_head=any(0 < share < 1 for share in trace["kept_share"]),
    )


def _pieces(trace: dict[str, list], prompt_tokens: int, answer_start: int) -> Iterator[Piece]:
    tokens = list(zip(trace["token_texts"], trace["evicted_at"], trace["kept_share"], strict=True))

    def fate(position: int) -> tuple[Part, int | None, int]:
        part: Part = "prompt" if position < prompt_tokens else "thinking"
        if position >= answer_start:
            part = "answer"
        _, evicted_at, share = tokens[position]
        return part, evicted_at, round(100 * share)

    num_chars = 0
    for (part, evicted_at, share), group in groupby(range(len(tokens)), key=fate):
        positions = list(group)
        for start in range(positions[0], positions[-1] + 1, _MAX_TOKENS):
            end = min(start + _MAX_TOKENS, positions[-1] + 1)
            text = "".join(token[0] for token in tokens[start:end])
            num_chars += len(text)
            if num_chars > MAX_CHARS:
                return
            yield Piece(part, text, start, evicted_at, share)
