"""The check of a loaded model: the engine must come by the logits that the model itself computes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from dynts_batch.engine.attention.steps import ATTENTION_NAME, DecodeStep, KVStep, PrefillStep
from dynts_batch.engine.model.memory import arena_shape
from dynts_batch.engine.out_of_memory import is_out_of_memory
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.policies.full import Full

#: Tokens in each of the three parts of a load's check: a prompt's first chunk, its second one, and those decoded. The first is
#: as long as a sliding window of no more than so many tokens, so that the others go beyond it.
CHECKED_TOKENS, LONGEST_CHECKED_WINDOW = 8, 128
#: How often a load's check asks how far rounding alone takes a model in half precision.
NOISE_SAMPLES = 3


@torch.inference_mode()
def check_logits(name: str, model: PreTrainedModel) -> None:
    """The engine's logits must be the model's own, computed with its own attention.

    Some models scale logits after the head, or attend in ways of their own, and would otherwise go on in silence.

    Raises: ConfigError where they differ by more than rounding.
    """
    window = getattr(model.config, "sliding_window", None) or 0
    first = max(CHECKED_TOKENS, window if window <= LONGEST_CHECKED_WINDOW else 0)
    length = first + 2 * CHECKED_TOKENS
    token_ids = torch.arange(length, device=model.device)[None] % model.config.vocab_size
    model.set_attn_implementation("eager")
    expected = model(input_ids=token_ids, use_cache=False).logits[0].float()
    model.set_attn_implementation(ATTENTION_NAME)
    try:
        found = _arena_logits(model, token_ids, first)
    # Keys or values of another shape than the configuration says, or layers that pass nothing on to their attention.
    except (RuntimeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(f"model.name: {name!r} does not fit the KV arena: {error}") from None
    is_exact, parts = model.dtype == torch.float32, (first, CHECKED_TOKENS, CHECKED_TOKENS)
    share = _difference(found, expected, parts, is_exact=is_exact)
    limit = 1e-3 if is_exact else 5e-2
    if share > limit and not is_exact:
        # Rounding sends tokens to other experts, and the more layers, the more of them.
        noise = [
            _difference(_rounded_logits(model, token_ids, seed), expected, parts, is_exact=False)
            for seed in range(NOISE_SAMPLES)
        ]
        limit = max(limit, 2 * sum(noise) / NOISE_SAMPLES)
    if not share <= limit:
        raise ConfigError(
            f"model.name: the engine must reproduce the logits of {name!r}, got a difference of {share:.0%} of the"
            " largest logit: its attention or its output head is not a plain one, or what attends on this device is wrong"
        )


def _difference(
    found: torch.Tensor, expected: torch.Tensor, parts: Sequence[int], *, is_exact: bool
) -> float:
    """Of logits [T, vocabulary], as a share of the largest: of the worst token or, where a few may be off, the median one, in
    that of the `parts` of T where it is largest."""
    differences = (found - expected).abs().amax(dim=-1) / expected.abs().max().clamp(min=1e-6)
    shares = [part.quantile(1.0 if is_exact else 0.5) for part in differences.split(list(parts))]
    return torch.stack(shares).max().item()


def _rounded_logits(model: PreTrainedModel, token_ids: torch.Tensor, seed: int) -> torch.Tensor:
    """float32 logits [T, vocabulary] by the model's own attention, with embeddings rounded another way: what may differ."""
    generator = torch.Generator().manual_seed(seed)

    def round_again(_module: nn.Module, _inputs: Any, embeddings: torch.Tensor) -> torch.Tensor:
        signs = torch.randint(0, 2, embeddings.shape, generator=generator) * 2 - 1
        factors = 1 + torch.finfo(embeddings.dtype).eps * signs
        return embeddings * factors.to(embeddings)

    hook = model.get_input_embeddings().register_forward_hook(round_again)
    model.set_attn_implementation("eager")
    try:
        return model(input_ids=token_ids, use_cache=False).logits[0].float()
    finally:
        hook.remove()
        model.set_attn_implementation(ATTENTION_NAME)


def _arena_logits(model: PreTrainedModel, token_ids: torch.Tensor, first: int) -> torch.Tensor:
    """float32 logits [T, vocabulary] of `token_ids` [1, T] as the engine comes by them: `first` and `CHECKED_TOKENS` in two
    chunks of a prompt, the others in decode steps."""
    length, device = token_ids.shape[1], model.device
    arena = KVArena(arena_shape(model.config, Full(), model.dtype), 1, length, device)
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
        model.base_model(
            input_ids=token_ids[:, start:stop],
            position_ids=positions[:, start:stop],
            use_cache=False,
            kv_step=step,
        ).last_hidden_state
        for (start, stop), step in steps.items()
    ]
    return model.get_output_embeddings()(torch.cat(hidden_states, dim=1))[0].float()
