"""One pass of a model over a text of the package: each layer's queries and keys, and how RoPE turns
them.

Owns the pass. Knows nothing about what is measured on it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from dynts_batch.engine.attention.steps import attend_causal
from dynts_batch.engine.model.loader import LoadedModel
from dynts_batch.kvcache.layer_states import AttentionRule, LayerStates
from dynts_batch.kvcache.query_stats import as_numbers, as_pairs, turns

TEXT = Path(__file__).with_name("text.txt")
#: Positions at which a model's frequencies are tried, and how far a turned query may be off,
#: relative to its length.
TRIED_POSITIONS, TURN_TOLERANCE = (1, 5, 40), 0.05


class Seen(NamedTuple):
    """The text's tokens in one layer, RoPE applied: queries [Q, T, D] and keys [H, T, D]."""

    queries: torch.Tensor
    keys: torch.Tensor
    rule: AttentionRule


@dataclass(frozen=True)
class TextPass:
    """What each layer has seen, in their order.

    `frequencies`, by layer: the angle by which RoPE turns each pair from one position to the next.
    If it turns a part of the head, those are the first numbers; if it turns nothing, there are no
    frequencies. None: it turns otherwise.
    """

    layers: list[Seen]
    frequencies: list[torch.Tensor | None]


class TextStep:
    """A forward pass over one text that stores nothing, but keeps what each layer has seen."""

    def __init__(self) -> None:
        self.found: dict[int, Seen] = {}

    def attend(self, states: LayerStates) -> torch.Tensor:
        layer, query, key, value, rule = states
        self.found[layer] = Seen(query[0], key[0], rule)
        return attend_causal(query, key, value, rule)


@torch.inference_mode()
def read_text(model: LoadedModel) -> TextPass:
    """All layers of `model`, on its device."""
    token_ids = model.tokenizer.encode(TEXT.read_text(encoding="utf-8"), add_special_tokens=True)
    layers = _run(model, token_ids[: model.num_positions])
    alone = {position: _run(model, token_ids[:1], position) for position in (0, *TRIED_POSITIONS)}
    named = [
        buffer.float()
        for name, buffer in model.decoder.named_buffers()
        if name.endswith("inv_freq")
    ]
    nothing = torch.zeros(0, device=model.device)
    frequencies = []
    for layer in range(len(layers)):
        queries = {position: seen[layer].queries for position, seen in alone.items()}
        fits = (frequency for frequency in (*named, nothing) if _turns_by(queries, frequency))
        frequencies.append(next(fits, None))
    return TextPass(layers, frequencies)


def turned(states: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """Queries or keys [..., D] whose first pairs are multiplied by `factors` [..., N], as float32.

    RoPE multiplies by factors of length 1. It turns the first 2 N numbers of a head.
    """
    num_turned = 2 * factors.shape[-1]
    pairs = as_pairs(states[..., :num_turned]) * factors
    return torch.cat((as_numbers(pairs), states[..., num_turned:].float()), dim=-1)


def _run(model: LoadedModel, token_ids: list[int], start: int = 0) -> list[Seen]:
    """What each layer sees of a text that begins at position `start`."""
    step, ids = TextStep(), torch.tensor([token_ids], device=model.device)
    positions = torch.arange(start, start + ids.shape[1], device=model.device)[None]
    model.decoder(input_ids=ids, position_ids=positions, use_cache=False, kv_step=step)
    return [seen for _, seen in sorted(step.found.items())]


def _turns_by(alone: dict[int, torch.Tensor], frequency: torch.Tensor) -> bool:
    """Whether the queries [Q, 1, D] of a lone token, by its position, are the query at position 0,
    turned.

    A lone token attends only to itself, so nothing but RoPE distinguishes its positions.
    """
    first = alone[0].float()
    if 2 * len(frequency) > first.shape[-1]:
        return False
    return all(
        (turned(first, turns(torch.tensor(p, device=first.device), frequency)) - alone[p]).norm()
        <= TURN_TOLERANCE * first.norm()
        for p in TRIED_POSITIONS
    )
