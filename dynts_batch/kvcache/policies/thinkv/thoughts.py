"""Thoughts: what a segment of a trace does, judged by the sparsity of attention at its end.

Owns ThinKV's types (arXiv 2510.01290), the measure of sparsity, and the file of a model's
calibration. Knows nothing about how a model is calibrated, nor about what becomes of a thought.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.model_id import ModelId

FORMAT = "dynts-thoughts-1"

#: Values of the column "thought". A token is REASONING until its segment's type is known.
TRANSITION, REASONING, EXECUTION = 0, 1, 2
#: Attention below this share of its row's maximum counts as none.
NEGLIGIBLE = 0.01


@dataclass(frozen=True)
class Thoughts:
    """How one model's thoughts are told apart, by the mean sparsity of attention in `layers`.

    Above `high` it is a transition, below `low` an execution, else reasoning. Without layers, all
    is reasoning.
    """

    layers: tuple[int, ...] = ()
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1 or len(set(self.layers)) < len(self.layers):
            raise ConfigError(
                "thoughts must have different layers and thresholds 0 <= low <= high <= 1, got"
                f" {self.layers}, {self.low} and {self.high}"
            )

    def classify(self, sparsity: torch.Tensor) -> torch.Tensor:
        """Types, int64 [...], of mean sparsities [...]."""
        types = torch.full(sparsity.shape, REASONING, device=sparsity.device)
        return types.masked_fill(sparsity > self.high, TRANSITION).masked_fill(
            sparsity < self.low, EXECUTION
        )


def sparsity(logits: torch.Tensor) -> torch.Tensor:
    """Share of the visible tokens whose attention is negligible, [R, T].

    `logits` [R, H, G, T, S] are those of T queries, minus infinity if a token is hidden. The
    largest logit of each group of query heads counts; a softmax and the mean over the groups
    follow.
    """
    visible = logits.amax(dim=(1, 2)) > -torch.inf
    probs = logits.amax(dim=2).softmax(dim=-1).mean(dim=1)
    negligible = visible & (probs < NEGLIGIBLE * probs.amax(dim=-1, keepdim=True))
    return negligible.sum(dim=-1) / visible.sum(dim=-1)


def save_thoughts(
    path: str | Path, thoughts: Thoughts, *, model: ModelId, notes: Mapping[str, str]
) -> None:
    """Write the calibration of `model`, and free `notes` on how it was made, to one safetensors
    file."""
    tensors = {
        "layers": torch.tensor(thoughts.layers, dtype=torch.int64),
        "thresholds": torch.tensor([thoughts.low, thoughts.high], dtype=torch.float64),
    }
    save_file(tensors, path, metadata={"format": FORMAT, **model.header(), **notes})


def load_thoughts(path: str | Path, *, model: ModelId, num_layers: int) -> Thoughts:
    """Read the calibration of `model`.

    Raises: ConfigError if the file is missing, damaged, or made for another model.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"model.thoughts: cannot read the file {str(path)!r}: {error}") from None
    if header.get("format") != FORMAT or found.keys() != {"layers", "thresholds"}:
        raise ConfigError(
            f"model.thoughts: {str(path)!r} must have format {FORMAT}, got {header.get('format')!r}"
        )
    layers = tuple(found["layers"].tolist())
    made_for = ModelId.of(header.get("model", ""), header)
    if not made_for.is_same(model) or max(layers, default=0) >= num_layers:
        raise ConfigError(
            f"model.thoughts: {str(path)!r} must be made for model {model} with {num_layers}"
            f" layers, got one for model {made_for} and layers {layers};"
            f" {made_for.remedy(model)}`dynts-batch calibrate-thoughts` makes one"
        )
    low, high = found["thresholds"].tolist()
    return Thoughts(layers, low, high)
