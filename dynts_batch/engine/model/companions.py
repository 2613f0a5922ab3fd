"""What was made for one model and is kept beside it: its importance predictor and its thoughts."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from transformers import PretrainedConfig

from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.files import ModelFiles
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.model_id import ModelId
from dynts_batch.kvcache.policies.thinkv.thoughts import Thoughts, load_thoughts
from dynts_batch.kvcache.predictor import ImportancePredictor, load_predictor


class Companions(NamedTuple):
    """Files that a policy needs, else None."""

    predictor: Path | None = None
    thoughts: Path | None = None
    told_apart: Thoughts = Thoughts()
    """The content of the file of thoughts."""


def find_companions(
    config: ModelConfig,
    files: ModelFiles,
    model: ModelId,
    model_config: PretrainedConfig,
    needed: Collection[type],
) -> Companions:
    """The companions of the types `needed` of `model`.

    Raises: ConfigError if one is missing or damaged, or was made for another model.
    """
    found = Companions()
    if ImportancePredictor in needed:
        wanted = "an importance predictor, which `dynts-batch train-predictor` makes, for"
        predictor = _needed(config, "predictor", files.predictor, wanted)
        load_predictor(predictor, model=model, hidden_size=model_config.hidden_size)
        found = found._replace(predictor=predictor)
    if Thoughts in needed:
        wanted = "what `dynts-batch calibrate-thoughts` has written for"
        thoughts = _needed(config, "thoughts", files.thoughts, wanted)
        told_apart = load_thoughts(thoughts, model=model, num_layers=model_config.num_hidden_layers)
        found = found._replace(thoughts=thoughts, told_apart=told_apart)
    return found


def _needed(config: ModelConfig, key: str, path: Path, wanted: str) -> Path:
    if not path.is_file():
        given = getattr(config, key)
        got = "null" if given is None else f"{given!r}, and there is no such file"
        raise ConfigError(
            f"model.{key} must be the path of {wanted} {config.name!r}, got {got};"
            " or take a policy.name that needs none, such as expected, rkv, window or full"
        )
    return path
