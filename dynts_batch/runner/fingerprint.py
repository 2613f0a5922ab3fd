"""What all rows of a run have in common: a run directory with another fingerprint is another run.

Prices, workers, memory and checkpoint settings are not in it: they may change between starts. In
float32 on a CPU no row depends on them; in bfloat16, or on a GPU, another batch size may round a
few tokens otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import dynts_batch
from dynts_batch.config import Config, GradingConfig, PolicyConfig
from dynts_batch.data.readers.source import Source
from dynts_batch.engine.factory import AnyModel
from dynts_batch.engine.model.think_tags import THINK
from dynts_batch.kvcache.policies import default_options, protects_prompt
from dynts_batch.runner.shard_plan import ShardPlan

# Whose change may change a token.
_PACKAGES = ("torch", "transformers", "tokenizers")


def make_fingerprint(
    config: Config, model: Mapping[str, Any], source: Source, plan: ShardPlan
) -> dict[str, Any]:
    """The fingerprint, as JSON data; `model` is what identifies the model."""
    settings = _settings(config)
    return {
        "num_units": plan.num_units,
        "shard_rows": plan.shard_rows,
        "model": dict(model),
        **settings,
        "input": {"content": source.fingerprint, **settings["input"]},
        "packages": {
            "dynts-batch": dynts_batch.__version__,
            **{package: version(package) for package in _PACKAGES},
        },
    }


def fingerprint_defaults(policy_name: str) -> dict[str, Any]:
    """What a fingerprint means by a key that it lacks:
    it was made before that key, or an option was left out."""
    policy = PolicyConfig(name=policy_name, options=default_options(policy_name))
    model: dict[str, Any] = {
        "think_tags": list(THINK),
        "chat_template_kwargs": {},
        "tokenizer_sha256": None,
    }
    return {**_settings(Config(policy=policy)), "model": model}


def renewed_fingerprint(
    stored: Mapping[str, Any], model: AnyModel, retry_budget: int | None
) -> dict[str, Any]:
    """The fingerprint `stored`, which an older version may have written, in today's words for a run
    of `model`. What is another run stays so.

    A run without second attempts may add them, with `retry_budget`: they come after all rows."""
    renewed = dict(stored)
    if isinstance(stored.get("model"), Mapping):
        renewed["model"] = model.in_todays_words(stored["model"])
    policy = stored.get("policy")
    if isinstance(policy, Mapping):
        renewed["policy"] = policy = dict(policy)
        if policy.get("quantize") is True:
            policy["quantize"] = "nvfp4"
        if retry_budget is not None and policy.get("retry_budget") is None:
            policy["retry_budget"] = retry_budget
    return renewed


def _settings(config: Config) -> dict[str, Any]:
    columns = asdict(config.input)
    return {
        "policy": asdict(config.policy) | {"protect_prompt": protects_prompt(config.policy)},
        "sampling": asdict(config.sampling),
        "max_prompt_tokens": config.memory.max_prompt_tokens,
        "grading": grading_fingerprint(config.grading),
        "input": {
            "prompt_template": config.input.prompt_template,
            "system_prompt": config.input.system_prompt,
            **{key: columns[key] for key in columns if key.endswith("_column")},
        },
    }


def grading_fingerprint(config: GradingConfig) -> dict[str, Any]:
    """What decides a judgement; re-grading changes this part of a fingerprint, and no other."""
    return {"kind": config.kind, "benchmark": config.benchmark, "text": config.text}
