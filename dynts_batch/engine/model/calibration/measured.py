"""What is measured of a loaded model: all that the policy and the stored keys need, in one pass."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from dynts_batch.engine.model.calibration.key_offsets import measure_key_offsets
from dynts_batch.engine.model.calibration.queries import measure_queries
from dynts_batch.engine.model.calibration.text_pass import read_text
from dynts_batch.engine.model.loader import LoadedModel
from dynts_batch.kvcache.policy import Policy
from dynts_batch.kvcache.query_stats import QueryStats
from dynts_batch.kvcache.recorders.recorder import companion_of


class Measured(NamedTuple):
    """`companions`: those that were given, and the measured ones. `key_offsets`: see KVArena."""

    companions: Sequence[object]
    key_offsets: Sequence[torch.Tensor | None]


def measure(
    model: LoadedModel, policy: Policy, companions: Sequence[object], num_positions: int
) -> Measured:
    """Measure what is needed and not among `companions`, for sequences of at most `num_positions`
    tokens.

    Raises: ConfigError if the policy needs statistics that this model does not have.
    """
    lacks_queries = QueryStats in policy.companions and companion_of(QueryStats, companions) is None
    form = policy.stored_in
    needs_offsets = form is not None and not form.keys.has_zero_point
    if not (lacks_queries or needs_offsets):
        return Measured(companions, ())
    text = read_text(model)
    if lacks_queries:
        companions = (*companions, measure_queries(text))
    return Measured(companions, measure_key_offsets(text, num_positions) if needs_offsets else ())
