"""What becomes of one architecture: the engine's tokens are those of `generate`, or why it is
refused. Anything else is our bug."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from dynts_batch.benchmarks.architectures.tiny import NotMadeError, load_tiny, save_tiny
from dynts_batch.config import Config, MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.factory import check_engine
from dynts_batch.engine.model.checkpoint.skeleton import MODEL_ERRORS, in_words
from dynts_batch.engine.model.support import check_support
from dynts_batch.errors import ConfigError
from dynts_batch.records import Request

PROMPT_LENGTHS, NEW_TOKENS = (40, 3, 17), 24
#: Ids of no special token.
TOKEN_IDS = range(7, 700)

Kind = Literal["runs", "refused at once", "refused when loaded", "not made", "WRONG"]


@dataclass(frozen=True)
class Outcome:
    """Of the architecture `model_type`; `reason` is the message of a refusal, "" where it runs."""

    model_type: str
    kind: Kind
    reason: str = ""


def find_outcome(cls: type[PretrainedConfig]) -> Outcome:
    """WRONG where the tokens differ, or the engine raises anything but a ConfigError."""
    with tempfile.TemporaryDirectory() as directory, _quiet():
        try:
            return _outcome(cls, Path(directory))
        except MODEL_ERRORS as error:
            return Outcome(cls.model_type, "WRONG", in_words(error))


def _outcome(cls: type[PretrainedConfig], folder: Path) -> Outcome:
    try:
        save_tiny(cls, folder)
        not_made = None
    except NotMadeError as error:
        not_made = str(error)
    model = ModelConfig(name=str(folder), device="cpu", dtype="float32")
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=NEW_TOKENS)
    memory = MemoryConfig(max_seqs=2, max_prompt_tokens=max(PROMPT_LENGTHS))
    policy = PolicyConfig(name="full")
    kind: Kind = "refused at once"
    try:
        check_engine(Config(model, sampling=sampling, policy=policy, memory=memory), on_gpu=False)
        kind = "refused when loaded"
        engine = Engine.load(model, policy, sampling, memory)
    except ConfigError as error:
        if not_made is not None and not _is_refused_by_its_configuration(cls, folder):
            return Outcome(cls.model_type, "not made", not_made)
        return Outcome(cls.model_type, kind, _in_general(str(error), folder))
    prompts = _prompts()
    try:
        expected = _generated(load_tiny(cls, folder), prompts)
    except MODEL_ERRORS as error:
        return Outcome(cls.model_type, "not made", f"generate fails: {in_words(error)}")
    found = _completions(engine, prompts)
    assert found == expected, f"{found} is not {expected}"
    return Outcome(cls.model_type, "runs")


def _is_refused_by_its_configuration(cls: type[PretrainedConfig], folder: Path) -> bool:
    try:
        check_support(cls.model_type, cls.from_pretrained(folder))
    except ConfigError:
        return True
    except MODEL_ERRORS:  # its default configuration breaks its own rules
        return False
    return False


def _prompts() -> list[list[int]]:
    rng = random.Random(0)
    return [rng.choices(TOKEN_IDS, k=length) for length in PROMPT_LENGTHS]


def _completions(engine: Engine, prompts: Sequence[list[int]]) -> list[list[int]]:
    """All together, in fewer lanes than there are prompts."""
    requests = [Request(str(n), prompt_token_ids=prompt) for n, prompt in enumerate(prompts)]
    found = {c.request_id: list(c.completion_token_ids) for c in engine.generate(requests)}
    return [found[str(n)] for n in range(len(prompts))]


def _generated(model: PreTrainedModel, prompts: Sequence[list[int]]) -> list[list[int]]:
    """Each alone, so that no padding plays a part."""
    found = []
    for prompt in prompts:
        ids = model.generate(torch.tensor([prompt]), max_new_tokens=NEW_TOKENS, do_sample=False)
        found.append(ids[0, len(prompt) :].tolist())
    return found


def _in_general(message: str, folder: Path) -> str:
    """A message without the place of this very model."""
    return " ".join(message.replace(f"{str(folder)!r}", "it").split())


@contextmanager
def _quiet():  # type: ignore[no-untyped-def]
    """Without what transformers says about models so small."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
        transformers_logging.enable_progress_bar()
