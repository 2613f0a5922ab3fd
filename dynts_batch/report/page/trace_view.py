"""A row's text as pieces for the page: prompt, thinking and answer, and what became of each.

Knows nothing about HTML: the page's template writes, and escapes, every piece.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
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
    half_evicted_at: int | None
    """Its length when fewer than half of the layers and heads still held them; None: never."""
    kept_share: int
    """Percent of the layers and heads that hold them at the end."""


@dataclass(frozen=True)
class TraceView:
    """One row. `pieces` is empty if no trace was recorded: then there are only texts."""

    row: dict[str, Any]
    pieces: tuple[Piece, ...]
    num_tokens: int
    num_stored: int
    """How many each layer and head holds at the end."""
    moments: tuple[int, ...]
    """Lengths of the sequence after which tokens were evicted."""


def view_trace(row: dict[str, Any], prompt_tokens: int, reasoning_tokens: int) -> TraceView:
    """`row` has the columns of RunRows.texts. The counts are that row's."""
    trace = row["token_trace"]
    if trace is None:
        return TraceView(row, (), 0, 0, ())
    times = {*trace["evicted_at"], *_half_evicted_at(trace), *_falls(trace)} - {None}
    return TraceView(
        row=row,
        pieces=tuple(_pieces(trace, prompt_tokens, prompt_tokens + reasoning_tokens)),
        num_tokens=len(trace["token_texts"]),
        num_stored=_num_stored(trace),
        moments=tuple(sorted(times)),
    )


def _half_evicted_at(trace: dict[str, list]) -> list[int | None]:
    return trace["half_evicted_at"] or trace["evicted_at"]  # rows of older versions lack it


def _falls(trace: dict[str, list]) -> list[int]:
    """After how many tokens fewer or no more were stored than before: there was an eviction."""
    stored = (trace["stored_len"] or [])[:-1]  # the newest token is not stored
    return [i + 2 for i, (before, now) in enumerate(pairwise(stored)) if now <= before]


def _num_stored(trace: dict[str, list]) -> int:
    if trace["stored_len"]:
        return trace["stored_len"][-1]
    return sum(at is None for at in trace["evicted_at"])


def _pieces(trace: dict[str, list], prompt_tokens: int, answer_start: int) -> Iterator[Piece]:
    columns = trace["evicted_at"], _half_evicted_at(trace), trace["kept_share"]
    tokens = list(zip(trace["token_texts"], *columns, strict=True))

    def fate(position: int) -> tuple[Part, int | None, int | None, int]:
        part: Part = "prompt" if position < prompt_tokens else "thinking"
        if position >= answer_start:
            part = "answer"
        _, evicted_at, half_evicted_at, share = tokens[position]
        return part, evicted_at, half_evicted_at, round(100 * share)

    num_chars = 0
    for (part, evicted_at, half_evicted_at, share), group in groupby(range(len(tokens)), key=fate):
        positions = list(group)
        for start in range(positions[0], positions[-1] + 1, _MAX_TOKENS):
            end = min(start + _MAX_TOKENS, positions[-1] + 1)
            text = "".join(token[0] for token in tokens[start:end])
            num_chars += len(text)
            if num_chars > MAX_CHARS:
                return
            yield Piece(part, text, start, evicted_at, half_evicted_at, share)
