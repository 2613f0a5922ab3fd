"""Statistics of a model's queries before RoPE.

The text they are measured on matters little: before RoPE a head's queries stay near their mean
whatever is read (arXiv 2604.04921). So a policy that predicts queries needs nothing but the model.
"""

from dynts_batch.engine.model.calibration.text_pass import TextPass
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.query_stats import LayerQueries, QueryStats


def measure_queries(text: TextPass) -> QueryStats:
    """Statistics of all layers, on the model's device.

    Raises: ConfigError if RoPE does not turn halves of a head by frequencies that the model names.
    """
    stats = []
    for layer, (seen, frequency) in enumerate(zip(text.layers, text.frequencies, strict=True)):
        if frequency is None or 2 * len(frequency) != seen.queries.shape[-1]:
            raise ConfigError(
                "policy.name must be one that foretells no queries, such as rkv or random, for a"
                " model whose rotary position embedding is not that of whole halves of a head, got"
                f" such a model in layer {layer}"
            )
        stats.append(LayerQueries.of(seen.queries, frequency, seen.rule))
    return QueryStats(stats)
