"""Draws the next token of every row from its logits. Owns filtering and the draw; knows nothing
about sequences."""

import torch

from dynts_batch.config import SamplingConfig
from dynts_batch.kvcache.counter_rng import uniform

#: The token id of a row whose logits are not finite, since a tensor holds no None.
NO_TOKEN = -1
#: Logits of which the largest is found first, on a CPU.
RUN = 128


def sample(
    logits: torch.Tensor, config: SamplingConfig, keys: torch.Tensor, positions: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Token ids [rows] from `logits` [rows, vocabulary]. Temperature 0 is the argmax.

    With `config.logprobs` also their log-probabilities, float32 [rows]. The id is `NO_TOKEN` if the
    largest logit is not finite, which is so if any is NaN or +inf. A logit of -inf is a token that
    is never drawn.

    Filters come in the Hugging Face order: temperature, top-k, top-p, min-p. The draw inverts the
    cumulative distribution at one uniform number. That number depends only on the row's `keys` and
    `positions` (int64 [rows]).
    """
    if config.temperature == 0:
        largest, token_ids = _largest(logits)
        logprobs = largest.float() - logits.float().logsumexp(dim=-1) if config.logprobs else None
        return token_ids.masked_fill(~largest.isfinite(), NO_TOKEN), logprobs
    num_kept = min(config.top_k or logits.shape[-1], logits.shape[-1])
    values, token_ids = (logits.float() / config.temperature).topk(num_kept, dim=-1)
    is_finite = values[:, 0].isfinite()  # NaN counts as larger than any number
    probs = values.softmax(dim=-1)
    if config.top_p < 1.0:
        # The smallest set that reaches top_p stays: a token stays if those before it don't reach
        # it.
        before = probs.cumsum(dim=-1) - probs
        probs = _renormalise(probs.masked_fill(before >= config.top_p, 0.0))
    if config.min_p > 0.0:
        probs = probs.masked_fill(probs < config.min_p * probs[:, :1], 0.0)
    cumulative = probs.double().cumsum(dim=-1)
    draw = uniform(keys, positions)[:, None] * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, draw, right=True).clamp_(max=num_kept - 1)
    drawn = token_ids.gather(-1, chosen).squeeze(-1).masked_fill(~is_finite, NO_TOKEN)
    return drawn, _log_share(probs, chosen) if config.logprobs else None


def _largest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """As `logits.max(dim=-1)`, of which a CPU needs less than half the time: to find an index it
    takes number after number, and to find a maximum many at once."""
    if logits.device.type != "cpu" or logits.shape[-1] % RUN:
        return logits.max(dim=-1)
    runs = logits.unflatten(-1, (-1, RUN))
    best = runs.amax(dim=-1).argmax(dim=-1)
    # Not by index: torch says that its result's shape depends on values, so no step would be
    # recorded.
    run = runs.take_along_dim(best[:, None, None], dim=1).squeeze(1)
    largest, place = run.max(dim=-1)
    return largest, best * RUN + place


def _log_share(probs: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """Log of the share of the `chosen` column [rows, 1] of `probs` [rows, kept] in its row."""
    return (probs.gather(-1, chosen).squeeze(-1) / probs.sum(dim=-1)).log()


def _renormalise(probs: torch.Tensor) -> torch.Tensor:
    return probs / probs.sum(dim=-1, keepdim=True)
