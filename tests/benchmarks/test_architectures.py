"""The sweep of architectures: those that run write the tokens of `generate`;
all others are refused in one line."""

from pathlib import Path

import pytest
from transformers import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from dynts_batch.benchmarks.architectures import page
from dynts_batch.benchmarks.architectures.outcome import Kind, find_outcome
from dynts_batch.benchmarks.architectures.tiny import types

PAGE = Path(page.__file__).with_name("ARCHITECTURES.md").read_text()


@pytest.mark.parametrize(
    ("model_type", "kind", "reason"),
    [
        # Their logits are scaled after the head.
        ("cohere2", "runs", ""),
        ("granite", "runs", ""),
        # Their text models come out of checkpoints that also see.
        ("gemma3", "runs", ""),
        ("mistral3", "runs", ""),
        ("afmoe", "runs", ""),
        ("hunyuan_v1_moe", "runs", ""),
        ("falcon", "refused when loaded", "must reproduce the logits"),
        ("doge", "refused when loaded", "does not fit the KV arena"),
        ("gpt_neo", "refused when loaded", "must reproduce the logits"),
        ("mpt", "refused when loaded", "must reproduce the logits"),
        ("gemma4_text", "refused at once", "attention heads of one number and size"),
        ("rwkv", "refused at once", "attention heads of one number and size"),
    ],
)
def test_an_architecture_runs_as_by_generate_or_is_refused_in_one_line(
    model_type: str, kind: Kind, reason: str
) -> None:
    outcome = find_outcome(CONFIG_MAPPING[model_type])
    assert outcome.kind == kind, outcome
    assert reason in outcome.reason
    assert "\n" not in outcome.reason
    assert f"`{model_type}`" in PAGE


def test_the_page_names_every_architecture_once() -> None:
    known = {*MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, *MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES}
    names = [part for part in PAGE.split("`") if part in known]
    assert len(names) == len(set(names))
    assert f"{len(names)} types" in PAGE


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_no_architecture_is_wrong() -> None:
    wrong = [outcome for cls in types() if (outcome := find_outcome(cls)).kind == "WRONG"]
    assert not wrong
