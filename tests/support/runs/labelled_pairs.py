"""Reads tests/grading/labelled_pairs.txt: what an examiner says of answers to a reference."""

from dataclasses import dataclass
from pathlib import Path

_TABLE = Path(__file__).parents[2] / "grading" / "labelled_pairs.txt"


@dataclass(frozen=True, slots=True)
class Pair:
    kind: str
    reference: str
    answer: str
    is_right: bool


def read_pairs(path: Path = _TABLE) -> list[Pair]:
    """All pairs of the table, in its order."""
    pairs: list[Pair] = []
    kind = reference = ""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        mark, text = line[:1], line[2:]
        if mark == "[":
            kind = line.strip("[]")
        elif mark == "=":
            reference = text
        elif mark in ("+", "-"):
            pairs.append(Pair(kind, reference, text, is_right=mark == "+"))
        elif line and mark != "#":
            raise ValueError(f"{path}:{number} must begin with one of # [ = + -, got {line!r}")
    return pairs
