"""What all rows of a run have in common: a run directory with another fingerprint is another run.

Prices, workers, memory and checkpoint settings are not in it: they may change between starts,
because no row depends on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import dynts_batch
from dynts_batch.config import Config, GradingConfig
from dynts_batch.data.source import Source
from dynts_batch.runner.plan import Plan

# Whose change may change a token.
_PACKAGES = ("torch", "transformers", "tokenizers")


def make_fingerprint(
    config: Config, model: Mapping[str, Any], source: Source, plan: Plan
) -> dict[str, Any]:
    """The fingerprint, as JSON data; `model` is what identifies the model (see check_engine)."""
    columns = asdict(config.input)
    return {
        "num_units": plan.num_units,
        "shard_rows": plan.shard_rows,
        "model": dict(model),
        "policy": asdict(config.policy),
        "sampling": asdict(config.sampling),
        "max_prompt_tokens": config.memory.max_prompt_tokens,
        "grading": grading_fingerprint(config.grading),
        "input": {
            "content": source.fingerprint,
            **{key: columns[key] for key in columns if key.endswith("_column")},
        },
        "packages": {
            "dynts-batch": dynts_batch.__version__,
            **{package: version(package) for package in _PACKAGES},
        },
    }


def grading_fingerprint(config: GradingConfig) -> dict[str, Any]:
    """What decides a judgement; re-grading changes this part of a fingerprint, and no other."""
    return {"kind": config.kind, "benchmark": config.benchmark}
