"""The importance predictor: an MLP that says how much the answer will attend to a thinking token.

Owns the module and its file format (one safetensors file with metadata). Knows nothing about
training.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.model_id import ModelId

FORMAT = "dynts-predictor-1"

#: What a predictor reads of a token: only its final-norm hidden state, as in the paper, or its
#: place as well.
Inputs = Literal["state", "state+place"]
#: Numbers that `place_of` makes of a place.
PLACE_SIZE = 3
#: Places are clipped this many standard deviations from the training's mean.
FARTHEST_PLACE = 3.0


@dataclass(frozen=True)
class PredictorMetadata:
    """What a predictor was made for, kept in the file's header."""

    model: ModelId
    hidden_size: int
    inputs: Inputs


def place_of(positions: torch.Tensor, prompt_tokens: torch.Tensor) -> torch.Tensor:
    """The places of tokens as far as they are known at writing time, [..., PLACE_SIZE].

    `positions` are in the sequence, `prompt_tokens` are lengths of prompts, [...] each or
    broadcastable.

    The three numbers are: how many tokens follow the prompt up to this one, the logarithm of that,
    and the length of the prompt. A longer problem takes longer to solve, so they hint at how near
    the answer is.
    """
    number = (positions - prompt_tokens).clamp(min=0).float() + 1
    return torch.stack(torch.broadcast_tensors(number, number.log(), prompt_tokens.float()), dim=-1)


class ImportancePredictor(nn.Sequential):
    """d -> 2d -> d/2 -> 1, without bias, Softplus after every layer (arXiv 2601.18383): scores are
    positive.

    With `inputs` "state+place" it reads d + `PLACE_SIZE` numbers. `place_mean` and `place_scale`
    standardise the place, and are saved with the weights.
    """

    place_mean: torch.Tensor
    place_scale: torch.Tensor

    def __init__(self, hidden_size: int, inputs: Inputs) -> None:
        width = hidden_size if inputs == "state" else hidden_size + PLACE_SIZE
        widths = (width, 2 * hidden_size, hidden_size // 2, 1)
        layers: list[nn.Module] = []
        for width_in, width_out in pairwise(widths):
            layers += [nn.Linear(width_in, width_out, bias=False), nn.Softplus()]
        super().__init__(*layers)
        self.hidden_size, self.inputs = hidden_size, inputs
        if inputs == "state+place":
            self.register_buffer("place_mean", torch.zeros(PLACE_SIZE))
            self.register_buffer("place_scale", torch.ones(PLACE_SIZE))

    def forward(  # type: ignore[override]  # the layers in order, but two inputs
        self, hidden_states: torch.Tensor, places: torch.Tensor
    ) -> torch.Tensor:
        """Scores [...] of tokens.

        `hidden_states` [..., hidden_size] are final-norm, `places` [..., PLACE_SIZE] are from
        `place_of`.
        """
        if self.inputs == "state+place":
            places = (places - self.place_mean) / self.place_scale
            places = places.clamp(-FARTHEST_PLACE, FARTHEST_PLACE)
            hidden_states = torch.cat([hidden_states, places], dim=-1)
        return super().forward(hidden_states).squeeze(-1)


def save_predictor(
    path: str | Path,
    predictor: ImportancePredictor,
    metadata: PredictorMetadata,
    notes: Mapping[str, str],
) -> None:
    """Write weights, metadata and free `notes` (settings of the training, metrics) to one
    safetensors file."""
    made_for = {"hidden_size": str(metadata.hidden_size), "inputs": metadata.inputs}
    header = {**metadata.model.header(), **made_for}
    weights = {name: tensor.contiguous() for name, tensor in predictor.state_dict().items()}
    save_file(weights, path, metadata={"format": FORMAT, **header, **notes})


def load_predictor(path: str | Path, *, model: ModelId, hidden_size: int) -> ImportancePredictor:
    """Read a predictor, in float32 on the CPU, for `model` with this width.

    Raises: ConfigError if the file is missing, damaged, or made for another model or width.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(
            f"model.predictor: cannot read the predictor file {str(path)!r}: {error}"
        ) from None
    if header.get("format") != FORMAT:
        raise ConfigError(
            f"model.predictor: {str(path)!r} must have format {FORMAT}, got"
            f" {header.get('format')!r}"
        )
    made_for, width = ModelId.of(header.get("model", ""), header), header.get("hidden_size")
    if not made_for.is_same(model) or width != str(hidden_size):
        raise ConfigError(
            f"model.predictor: {str(path)!r} must be made for model {model} with hidden_size"
            f" {hidden_size}, got one for model {made_for} with hidden_size {width};"
            f" {made_for.remedy(model)}`dynts-batch label` and `dynts-batch train-predictor` make"
            " one"
        )
    inputs = header.get("inputs", "state")  # older files lack the key
    if inputs not in get_args(Inputs):
        raise ConfigError(
            f"model.predictor: {str(path)!r} must read one of {', '.join(get_args(Inputs))}, got"
            f" {inputs!r}"
        )
    predictor = ImportancePredictor(hidden_size, inputs)
    try:
        predictor.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(f"model.predictor: {str(path)!r} has other weights: {error}") from None
    return predictor.eval().requires_grad_(False)
