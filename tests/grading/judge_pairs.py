"""Prints errors by kind over labelled_pairs.txt, ours beside plain math-verify:
`python tests/grading/judge_pairs.py`.

With --list, every pair that a grader has wrong is printed too. Plain math-verify is
`verify(parse(reference), parse(answer))` with its own defaults; a reference that is bare LaTeX is
boxed first, since it reads no other.
"""

import argparse
import logging
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support" / "runs"))

from labelled_pairs import Pair, read_pairs

from dynts_batch.grading import Grader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--list", action="store_true", help="print the pairs that are judged wrongly"
    )
    parser.add_argument("--table", type=Path, help="other pairs, in the same format")
    args = parser.parse_args()
    logging.disable()
    pairs = read_pairs(args.table) if args.table else read_pairs()
    with Grader("math", timeout_s=10.0) as grader:
        ours = [bool(grader.grade(pair.answer, pair.reference).correct) for pair in pairs]
    theirs = [math_verify_says(pair) for pair in pairs]
    _print_table(pairs, ours, theirs)
    if args.list:
        _print_errors("ours", pairs, ours)
        _print_errors("math-verify", pairs, theirs)


def math_verify_says(pair: Pair) -> bool:
    from math_verify import parse, verify

    is_wrapped = "$" in pair.reference or "boxed" in pair.reference or "####" in pair.reference
    reference = pair.reference if is_wrapped else rf"\boxed{{{pair.reference}}}"
    return bool(verify(parse(reference), parse(pair.answer)))


def _print_table(pairs: list[Pair], ours: list[bool], theirs: list[bool]) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    for pair, our, their in zip(pairs, ours, theirs, strict=True):
        for kind in (pair.kind, "all"):
            counts[kind, "pairs"] += 1
            counts[kind, "right"] += pair.is_right
            counts[kind, "our accepts"] += our and not pair.is_right
            counts[kind, "our rejects"] += pair.is_right and not our
            counts[kind, "their accepts"] += their and not pair.is_right
            counts[kind, "their rejects"] += pair.is_right and not their
            counts[kind, "ours alone"] += our and not their and not pair.is_right
    print(f"{'':22}{'':>13}{'false accepts':>22}{'false rejects':>22}{'accepts only':>14}")
    print(
        f"{'kind':22}{'pairs':>6}{'right':>7}"
        + f"{'ours':>9}{'math-verify':>13}" * 2
        + f"{'ours':>14}"
    )
    for kind in dict.fromkeys([*(pair.kind for pair in pairs), "all"]):
        print(
            f"{kind:22}{counts[kind, 'pairs']:6}{counts[kind, 'right']:7}"
            f"{counts[kind, 'our accepts']:9}{counts[kind, 'their accepts']:13}"
            f"{counts[kind, 'our rejects']:9}{counts[kind, 'their rejects']:13}"
            f"{counts[kind, 'ours alone']:14}"
        )


def _print_errors(name: str, pairs: list[Pair], verdicts: list[bool]) -> None:
    for pair, verdict in zip(pairs, verdicts, strict=True):
        if verdict != pair.is_right:
            said = "accepts" if verdict else "rejects"
            print(f"{name} {said} [{pair.kind}] {pair.answer}   for   {pair.reference}")


if __name__ == "__main__":
    main()
