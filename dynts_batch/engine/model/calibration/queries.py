"""Measures statistics of a model's queries before RoPE, in one pass over a text of the package.

The text matters little: before RoPE a head's queries stay near their mean whatever is read (arXiv
2604.04921). So a policy that predicts queries needs nothing but the model.
"""

from pathlib import Path

import torch

from dynts_batch.engine.attention.steps import attend_causal
from dynts_batch.engine.model.loader import LoadedModel
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.layer_states import AttentionRule, LayerStates
from dynts_batch.kvcache.query_stats import LayerQueries, QueryStats, as_pairs, turns

TEXT = Path(__file__).with_name("text.txt")
#: Positions at which a model's frequencies are tried, and how far a turned query may be off,
#: relative to its length.
TRIED_POSITIONS, TURN_TOLERANCE = (1, 5, 40), 0.05


class QueryStep:
    """A forward pass over one text that stores nothing, but keeps the queries of each layer, [Q, T,
    D]."""

    def __init__(self) -> None:
        self.found: dict[int, tuple[torch.Tensor, AttentionRule]] = {}

    def attend(self, states: LayerStates) -> torch.Tensor:
        layer, query, key, value, rule = states
        self.found[layer] = query[0], rule
        return attend_causal(query, key, value, rule)


@torch.inference_mode()
def measure_queries(model: LoadedModel) -> QueryStats:
    """Statistics of all layers of `model`, on its device.

    Raises: ConfigError if RoPE does not turn halves of a head by frequencies that the model names.
    """
    token_ids = model.tokenizer.encode(TEXT.read_text(encoding="utf-8"), add_special_tokens=True)
    measured = _queries(model, token_ids)
    first = {
        position: _queries(model, token_ids[:1], position) for position in (0, *TRIED_POSITIONS)
    }
    named = [
        buffer.float()
        for name, buffer in model.decoder.named_buffers()
        if name.endswith("inv_freq")
    ]
    stats = []
    for layer, (queries, rule) in sorted(measured.items()):
        alone = {position: found[layer][0] for position, found in first.items()}
        fits = [frequency for frequency in named if _turns_by(alone, frequency)]
        if not fits:
            raise ConfigError(
                "policy.name must be one that foretells no queries, such as rkv or random, for a"
                " model whose rotary position embedding is not that of whole halves of a head, got"
                f" such a model in layer {layer}"
            )
        stats.append(LayerQueries.of(queries, fits[0], rule))
    return QueryStats(stats)


def _queries(
    model: LoadedModel, token_ids: list[int], start: int = 0
) -> dict[int, tuple[torch.Tensor, AttentionRule]]:
    """Queries and rules of a text that begins at position `start`, by layer."""
    step, ids = QueryStep(), torch.tensor([token_ids], device=model.device)
    positions = torch.arange(start, start + ids.shape[1], device=model.device)[None]
    model.decoder(input_ids=ids, position_ids=positions, use_cache=False, kv_step=step)
    return step.found


def _turns_by(alone: dict[int, torch.Tensor], frequency: torch.Tensor) -> bool:
    """Whether the queries [Q, 1, D] of a lone token, by its position, are the query at position 0,
    turned.

    A lone token attends only to itself, so nothing but RoPE distinguishes its positions.
    """
    pairs = {position: as_pairs(queries) for position, queries in alone.items()}
    if 2 * len(frequency) != alone[0].shape[-1]:
        return False
    return all(
        (pairs[0] * turns(torch.tensor(p, device=frequency.device), frequency) - pairs[p]).norm()
        <= TURN_TOLERANCE * pairs[0].norm()
        for p in TRIED_POSITIONS
    )
