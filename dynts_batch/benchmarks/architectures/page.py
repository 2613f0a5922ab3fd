"""The page of outcomes, in Markdown."""

from __future__ import annotations

import re
import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence

import transformers

from dynts_batch.benchmarks.architectures.outcome import NEW_TOKENS, PROMPT_LENGTHS, Outcome

COMMAND = (
    "python -m dynts_batch.benchmarks.architectures"
    " > dynts_batch/benchmarks/architectures/ARCHITECTURES.md"
)


def page(outcomes: Sequence[Outcome]) -> str:
    counts: Counter[str] = Counter(outcome.kind for outcome in outcomes)
    head = (
        f"Every decoder of transformers {transformers.__version__}, as a tiny random checkpoint in"
        f" float32: {len(outcomes)} types, of which {counts['runs']} run. One that runs gives,"
        f" greedily, the very tokens of `generate`: {len(PROMPT_LENGTHS)} prompts of"
        f" {', '.join(map(str, PROMPT_LENGTHS))} tokens in one batch, {NEW_TOKENS} new tokens each."
        f" Every other one is refused in one line. `{COMMAND}` writes this page."
    )
    running = ", ".join(sorted(f"`{o.model_type}`" for o in outcomes if o.kind == "runs"))
    lines = ["# Which architectures run", "", _wrapped(head), "", "## They run", ""]
    lines += [_wrapped(running)]
    for kind, title in (
        ("refused at once", "They are refused before a worker starts"),
        (
            "refused when loaded",
            "The first worker refuses them when it has loaded them, and the run ends",
        ),
        ("WRONG", "They are wrong: a bug of ours"),
        ("not made", "transformers could not make one so small here"),
    ):
        if counts[kind]:
            lines += ["", f"## {title}", "", "| why | types |", "|---|---|"]
            lines += _by_reason([outcome for outcome in outcomes if outcome.kind == kind])
    return "\n".join(lines) + "\n"


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100, break_long_words=False, break_on_hyphens=False)


def _by_reason(outcomes: Sequence[Outcome]) -> list[str]:
    """The rows of a table, the reason that most types share first."""
    types = defaultdict(list)
    for outcome in outcomes:
        general = re.sub(
            r"\d+%", "so many %", outcome.reason.replace(repr(outcome.model_type), "...")
        )
        types[general].append(outcome.model_type)
    rows = sorted(types.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        f"| {reason.replace('|', chr(92) + '|')} |"
        f" {', '.join(f'`{name}`' for name in sorted(names))} |"
        for reason, names in rows
    ]
