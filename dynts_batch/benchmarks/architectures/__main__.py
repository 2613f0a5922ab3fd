"""The table of all architectures, as the page ARCHITECTURES.md:

    python -m dynts_batch.benchmarks.architectures \\
        > dynts_batch/benchmarks/architectures/ARCHITECTURES.md

or of some, whose model types follow the command. Says on stderr which one is at work.
"""

from __future__ import annotations

import sys

from dynts_batch.benchmarks.architectures.outcome import find_outcome
from dynts_batch.benchmarks.architectures.page import page
from dynts_batch.benchmarks.architectures.tiny import types

wanted = sys.argv[1:]
outcomes = []
for cls in types():
    if not wanted or cls.model_type in wanted:
        print(cls.model_type, file=sys.stderr)
        outcomes.append(find_outcome(cls))
print(page(outcomes), end="")
sys.exit(any(outcome.kind == "WRONG" for outcome in outcomes))
