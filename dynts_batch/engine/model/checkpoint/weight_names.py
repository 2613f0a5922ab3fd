"""Which weights a checkpoint lacks, by the headers of its safetensors files. Loads none.

transformers fills weights that it does not find with random numbers. Its own renaming of a
checkpoint's names is used here, on a model without storage.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from dynts_batch.errors import ConfigError

logger = logging.getLogger(__name__)

#: Buffers that old checkpoints hold and no model reads.
_OLD_BUFFERS = re.compile(r"(rotary_emb\.inv_freq|\.attn\.bias|masked_bias|position_ids)$")


class Weights(NamedTuple):
    """Names of weights: those without a value, without a place in the model, and of another
    shape."""

    missing: list[str]
    unexpected: list[str]
    mismatched: list[str]


def check_weight_names(name: str, files: Iterable[Path], model: PreTrainedModel) -> None:
    """Check that the safetensors `files` have all weights of `model`, in their shapes.

    `model` is on the device "meta", so it has only shapes.

    Raises: ConfigError if weights are missing or have another shape.
    """
    num_weights = sum(1 for _ in model.named_parameters())
    refuse_missing(name, compare(_headers(files), model), num_weights)


def refuse_missing(name: str, weights: Weights, num_weights: int) -> None:
    """Refuse a missing weight, or one of another shape. A weight without a place is a warning.

    Raises: ConfigError.
    """
    missing, unexpected, mismatched = (sorted(names) for names in weights)
    extra = (
        f"{len(unexpected):,} that the model has no place for, such as {unexpected[0]!r}"
        if unexpected
        else ""
    )
    if missing:
        beside = f"; its files hold {extra}" if extra else ""
        raise ConfigError(
            f"model.name: {name!r} must hold all weights of its model, got none for"
            f" {len(missing):,} of {num_weights:,}, such as {missing[0]!r}{beside}"
        )
    if mismatched:
        raise ConfigError(
            f"model.name: {name!r} must hold weights of the shapes that its config.json says, got"
            f" others for {len(mismatched):,} of {num_weights:,}, such as {mismatched[0]}"
        )
    if extra:
        logger.warning("model.name: %r holds weights that are not used: %s", name, extra)


def loaded_weights(found: Mapping[str, Any]) -> Weights:
    """From what transformers reports after loading a model."""
    mismatched = [" ".join(map(str, entry)) for entry in found["mismatched_keys"]]
    return Weights([*found["missing_keys"]], [*found["unexpected_keys"]], mismatched)


def compare(shapes: Iterable[tuple[str, list[int]]], model: PreTrainedModel) -> Weights:
    """Compare the weights of a checkpoint, names with `shapes`, with those of `model`."""
    places = model.state_dict()
    parameters = {key for key, _ in model.named_parameters()}
    mapping = get_model_conversion_mapping(model)
    renamings = [entry for entry in mapping if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in mapping if isinstance(entry, WeightConverter)]
    found, unexpected, mismatched = set(), [], []
    for source, shape in shapes:
        key, converter = rename_source_key(
            source, renamings, converters, model.base_model_prefix, places
        )
        if key not in places and source in places:
            key, converter = source, None
        if key not in places:
            unexpected.append(source)
            continue
        found |= {key, *_further_targets(key, converter, converters)}
        if converter is None and list(places[key].shape) != shape:
            mismatched.append(f"{source!r} of {shape} for {list(places[key].shape)}")
    for target, source in model.all_tied_weights_keys.items():
        if {target, source} & found:
            found |= {target, source}
    return Weights(
        [
            key
            for key in parameters - found
            if not _matches(model._keys_to_ignore_on_load_missing, key)
        ],
        [
            key
            for key in unexpected
            if not _OLD_BUFFERS.search(key)
            and not _matches(model._keys_to_ignore_on_load_unexpected, key)
        ],
        mismatched,
    )


def _further_targets(
    key: str, source_pattern: str | None, converters: Iterable[WeightConverter]
) -> Iterator[str]:
    """The other weights that a tensor becomes, if `key` is the first of several."""
    for converter in converters:
        if source_pattern in converter.source_patterns:
            first, *others = converter.target_patterns
            yield from (key.replace(first, other) for other in others)


def _headers(files: Iterable[Path]) -> Iterator[tuple[str, list[int]]]:
    for file in files:
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118  it is no dict
                yield key, opened.get_slice(key).get_shape()


def _matches(patterns: Iterable[str] | None, key: str) -> bool:
    return any(re.search(pattern, key) for pattern in patterns or ())
