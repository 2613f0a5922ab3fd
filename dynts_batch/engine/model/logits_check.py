"""The check of a loaded model: the engine must reproduce the model's own logits."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from dynts_batch.engine.attention.steps import (
    DecodeStep,
    KVStep,
    PrefillStep,
    register_attention,
)
from dynts_batch.engine.model.checkpoint.skeleton import loading_errors
from dynts_batch.engine.model.fusing import plain_layers
from dynts_batch.engine.model.memory import arena_shape
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.policies.baselines.full import Full

#: Tokens in each of the check's three parts: a prompt's first chunk, its second one, and decode
#: steps. The first chunk is longer if there is a sliding window of at most so many tokens: as long
#: as the window, so that the others go beyond it.
CHECKED_TOKENS, LONGEST_CHECKED_WINDOW = 8, 128
#: How often the check measures how far rounding alone moves a model that rounds its numbers.
NOISE_SAMPLES = 3


@torch.inference_mode()
def check_logits(
    name: str,
    model: PreTrainedModel,
    decoder: PreTrainedModel,
    head: nn.Module,
    *,
    rounds_inputs: bool = False,
) -> None:
    """Compare the logits of `decoder` and `head` in the engine with the model's own attention.

    Some models attend in their own way, or change the decoder's output. Without this check they
    would write wrong text silently. `rounds_inputs`: layers round what they read to 8 bits, so a
    difference in a last bit may become one in an eighth.

    Raises: ConfigError if they differ by more than rounding, or if the decoder does not fit the
    arena.
    """
    config, device = decoder.config, decoder.device
    window = getattr(config, "sliding_window", None) or 0
    first = max(CHECKED_TOKENS, window if window <= LONGEST_CHECKED_WINDOW else 0)
    length = first + 2 * CHECKED_TOKENS
    token_ids = torch.arange(length, device=device)[None] % config.vocab_size
    with loading_errors(f"model.name: {name!r} does not fit the KV arena"):
        with plain_layers(model):
            expected = _own_logits(model, decoder, token_ids)
        found = head(_arena_states(decoder, token_ids, first))[0].float()
    is_exact = decoder.dtype == torch.float32 and not rounds_inputs
    parts = (first, CHECKED_TOKENS, CHECKED_TOKENS)
    share = _difference(found, expected, parts, is_exact=is_exact)
    limit = 1e-3 if is_exact else 5e-2
    # Rounding sends tokens to other experts and numbers to other codes, the more the more layers
    # there are. So twice the mean of how far that alone goes is allowed.
    noise = 0.0
    for seed in range(0 if is_exact else NOISE_SAMPLES):
        if share <= limit:
            break
        logits = _rounded_logits(model, decoder, token_ids, seed)
        noise += _difference(logits, expected, parts, is_exact=False) / NOISE_SAMPLES
        limit = max(limit, 2 * noise)
    if not share <= limit:
        raise ConfigError(
            f"model.name: the engine must reproduce the logits of {name!r}, got a difference of"
            f" {share:.0%} of the largest logit: its attention or its output head is not a plain"
            " one, or what attends on this device is wrong"
        )


def _difference(
    found: torch.Tensor, expected: torch.Tensor, parts: Sequence[int], *, is_exact: bool
) -> float:
    """Difference of logits [T, vocabulary], as a share of the largest logit.

    It is the worst token's. If a few may be off, it is the median token's, in the worst of the
    `parts` of T.
    """
    differences = (found - expected).abs().amax(dim=-1) / expected.abs().max().clamp(min=1e-6)
    shares = [part.quantile(1.0 if is_exact else 0.5) for part in differences.split(list(parts))]
    return torch.stack(shares).max().item()


def _own_logits(
    model: PreTrainedModel, decoder: PreTrainedModel, token_ids: torch.Tensor
) -> torch.Tensor:
    """float32 logits [T, vocabulary] by the model's own attention."""
    decoder.set_attn_implementation("eager")
    try:
        return model(input_ids=token_ids, use_cache=False).logits[0].float()
    finally:
        decoder.set_attn_implementation(register_attention())


def _rounded_logits(
    model: PreTrainedModel, decoder: PreTrainedModel, token_ids: torch.Tensor, seed: int
) -> torch.Tensor:
    """The model's own logits with embeddings rounded otherwise: a difference that is allowed."""
    generator = torch.Generator().manual_seed(seed)

    def round_again(_module: nn.Module, _inputs: Any, embeddings: torch.Tensor) -> torch.Tensor:
        signs = torch.randint(0, 2, embeddings.shape, generator=generator) * 2 - 1
        factors = 1 + torch.finfo(embeddings.dtype).eps * signs
        return embeddings * factors.to(embeddings)

    hook = model.get_input_embeddings().register_forward_hook(round_again)
    try:
        return _own_logits(model, decoder, token_ids)
    finally:
        hook.remove()


def _arena_states(decoder: PreTrainedModel, token_ids: torch.Tensor, first: int) -> torch.Tensor:
    """Hidden states [1, T, hidden_size] of `token_ids` [1, T], computed as the engine does.

    `first` and then `CHECKED_TOKENS` tokens are two chunks of a prompt. The others are decode
    steps.
    """
    length, device = token_ids.shape[1], decoder.device
    arena = KVArena(arena_shape(decoder.config, Full(), decoder.dtype), 1, length, device)
    lanes = torch.zeros(1, dtype=torch.long, device=device)
    positions = torch.arange(length, device=device)[None]
    arena.write_column("positions", lanes, positions, positions)
    prompt = first + CHECKED_TOKENS
    steps: dict[tuple[int, int], KVStep] = {
        (0, first): PrefillStep(arena, lanes, lanes + first),
        (first, prompt): PrefillStep(arena, lanes, lanes + CHECKED_TOKENS, first),
    }
    for slot in range(prompt, length):
        place = lanes + slot
        step = DecodeStep(arena, place, place, max_len=slot + 1, is_ragged=False)
        steps[slot, slot + 1] = step
    hidden_states = [
        decoder(
            input_ids=token_ids[:, start:stop],
            position_ids=positions[:, start:stop],
            use_cache=False,
            kv_step=step,
        ).last_hidden_state
        for (start, stop), step in steps.items()
    ]
    return torch.cat(hidden_states, dim=1)
