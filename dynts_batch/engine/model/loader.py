"""Loads a Hugging Face decoder with its tokenizer, plugged into the arena attention, and says what arena it needs.

Everything that can be refused from the model's configuration alone is refused by `inspect_model`, which loads no weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from dynts_batch.config import MemoryConfig, ModelConfig
from dynts_batch.engine.attention.steps import (
    ATTENTION_NAME,
    DecodeStep,
    KVStep,
    PrefillStep,
    register_attention,
)
from dynts_batch.engine.factory import is_out_of_memory
from dynts_batch.engine.model.experts import pack_experts
from dynts_batch.engine.model.files import model_id, model_path, no_such_model, pinned
from dynts_batch.engine.model.packing import pack_linears
from dynts_batch.engine.model.think_tags import THINK, ThinkTags, find_think_tags
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.arena import ArenaShape, KVArena
from dynts_batch.kvcache.policies.full import Full
from dynts_batch.kvcache.policy import Policy
from dynts_batch.kvcache.predictor import ImportancePredictor, load_predictor
from dynts_batch.kvcache.stores.formats import GROUP
from dynts_batch.kvcache.thoughts import Thoughts, load_thoughts

#: Sequences decoded together where nothing else bounds the arena.
DEFAULT_MAX_SEQS = 32
#: Share of the free GPU memory, after the weights, that the arena takes where nothing else bounds it.
GPU_MEMORY_SHARE = 0.8
#: One logit in the model's type, in float32, by temperature, sorted, and its token id.
LOGIT_BYTES = 24
#: Kinds of attention layers whose cache the arena can hold.
LAYER_TYPES = {"full_attention", "sliding_attention"}
#: Rotary embeddings whose frequencies follow the longest sequence of a batch.
CHANGING_ROPE_TYPES = {"dynamic", "longrope"}
#: Tokens in each of the three parts of a load's check: a prompt's first chunk, its second one, and those decoded. The first is
#: as long as a sliding window of no more than so many tokens, so that the others go beyond it.
CHECKED_TOKENS, LONGEST_CHECKED_WINDOW = 8, 128
#: How often a load's check asks how far rounding alone takes a model in half precision.
NOISE_SAMPLES = 3
#: What the arena attention does not compute: capped logits, and keys and values in a latent space or shared by layers.
UNSUPPORTED_KEYS = (
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "kv_lora_rank",
    "num_kv_shared_layers",
)


@dataclass(frozen=True)
class LoadedModel:
    """`decoder` gives final-norm hidden states, `head` turns them into logits."""

    decoder: PreTrainedModel
    head: nn.Module
    tokenizer: PreTrainedTokenizerBase
    stop_token_ids: frozenset[int]
    config: PretrainedConfig
    device: torch.device
    think_tags: ThinkTags = THINK


def pick_device(config: ModelConfig) -> torch.device:
    """Raises: ConfigError where cuda is asked for and there is none."""
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise ConfigError("model.device is cuda, but torch sees no GPU here; choices: auto, cpu")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")


def inspect_model(config: ModelConfig) -> PretrainedConfig:
    """The model's configuration, checked to be one this engine can run.

    Raises: ConfigError where it cannot be found, is no causal language model, or has layers without a KV cache.
    """
    try:
        model_config = AutoConfig.from_pretrained(
            model_path(config.name),
            revision=config.revision,
            trust_remote_code=config.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise no_such_model(config.name, error) from None
    # BERT and its kin have a causal head too, but read both ways.
    is_encoder = type(model_config) in MODEL_FOR_MASKED_LM_MAPPING
    if is_encoder or type(model_config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ConfigError(
            f"model.name must be a causal language model, got {config.name!r} of type {model_config.model_type!r}"
        )
    if unknown := set(getattr(model_config, "layer_types", None) or LAYER_TYPES) - LAYER_TYPES:
        raise ConfigError(
            f"model.name must have only {' or '.join(sorted(LAYER_TYPES))} layers, got {config.name!r} with "
            f"{', '.join(sorted(unknown))}"
        )
    if changing := _rope_types(model_config) & CHANGING_ROPE_TYPES:
        # Keys are stored after RoPE, and a row must not depend on its batch-mates' lengths.
        raise ConfigError(
            f"model.name must have positions that do not change with the length of the batch, got {config.name!r} with"
            f" rope_type {', '.join(sorted(changing))}"
        )
    if found := [key for key in UNSUPPORTED_KEYS if getattr(model_config, key, None)]:
        raise ConfigError(
            f"model.name must have plain grouped-query attention and uncapped logits, got {config.name!r} with"
            f" {', '.join(f'{key}={getattr(model_config, key)}' for key in found)}"
        )
    return model_config


def _rope_types(model_config: PretrainedConfig) -> set[str]:
    """Kinds of rotary embedding; some models have one for each type of layer."""
    parameters = getattr(model_config, "rope_parameters", None) or {}
    groups = [parameters, *(group for group in parameters.values() if isinstance(group, dict))]
    return {str(group["rope_type"]) for group in groups if "rope_type" in group}


def pick_dtype(
    config: ModelConfig, model_config: PretrainedConfig, device: torch.device
) -> torch.dtype:
    """`auto` is float32 on a CPU and the checkpoint's own dtype on a GPU."""
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    return torch.float32 if device.type == "cpu" else (model_config.dtype or torch.bfloat16)


def arena_shape(
    model_config: PretrainedConfig,
    policy: Policy,
    dtype: torch.dtype,
    thoughts: Thoughts = Thoughts(),
) -> ArenaShape:
    """The arena that `policy` needs; of thoughts it records something only where there is what tells them apart.

    Raises: ConfigError where keys and values of this model cannot be quantised.
    """
    num_heads = model_config.num_attention_heads
    head_dim = getattr(model_config, "head_dim", None) or model_config.hidden_size // num_heads
    if policy.stored_in and head_dim % GROUP:
        raise ConfigError(
            f"policy.quantize must be false for a model whose head_dim is no multiple of {GROUP}, got {policy.quantize} and a head_dim"
            f" of {head_dim}"
        )
    columns = tuple(x for x in policy.requires if x != "thought" or thoughts.layers)
    return ArenaShape(
        num_layers=model_config.num_hidden_layers,
        num_kv_heads=getattr(model_config, "num_key_value_heads", None) or num_heads,
        head_dim=head_dim,
        dtype=dtype,
        per_head=policy.per_head,
        columns=columns,
        num_queries=max(policy.num_queries, "thought" in columns),
        num_query_heads=num_heads,
        stored_in=policy.stored_in,
    )


def prefill_bytes(model_config: PretrainedConfig, dtype: torch.dtype, num_tokens: int) -> int:
    """What a layer's activations of so many tokens take at most: residual, projections, attention, both MLP halves."""
    widest = 8 * model_config.hidden_size + 3 * (model_config.intermediate_size or 0)
    return num_tokens * widest * dtype.itemsize


def room_on_gpu(free_bytes: int, total_bytes: int, own_bytes: int, gpu_share: float) -> int:
    """What is left of this process's share of a GPU, of which it holds `own_bytes`: the same for all that share it,
    whoever of them asks first."""
    return min(free_bytes, int(total_bytes * gpu_share) - own_bytes)


def plan_max_seqs(
    shape: ArenaShape,
    capacity: int,
    memory: MemoryConfig,
    free_bytes: int | None,
    vocab_size: int = 0,
) -> int:
    """How many sequences of `capacity` tokens the memory settings hold; `free_bytes`: of a GPU, None on a CPU. Where they
    bound it, each sequence also brings a row of `vocab_size` logits.

    Raises: ConfigError where not even one fits, naming both numbers.
    """
    sequence_bytes = shape.bytes_per_sequence(capacity)
    if memory.kv_gib is None and free_bytes is None:
        return memory.max_seqs or DEFAULT_MAX_SEQS
    if memory.kv_gib is not None:
        budget_bytes, source = int(memory.kv_gib * 2**30), f"memory.kv_gib ({memory.kv_gib})"
    else:
        assert free_bytes is not None
        budget_bytes, source = int(free_bytes * GPU_MEMORY_SHARE), "the GPU's free memory"
        sequence_bytes += vocab_size * LOGIT_BYTES
    num_seqs = budget_bytes // sequence_bytes
    if num_seqs < 1:
        queries = f" and {shape.num_queries} queries" if shape.num_queries else ""
        raise ConfigError(
            f"{source} must hold at least one sequence: {capacity} tokens x {shape.bytes_per_token} bytes{queries} = "
            f"{sequence_bytes} bytes, got {budget_bytes} bytes"
        )
    return min(num_seqs, memory.max_seqs or num_seqs)


def load_model(config: ModelConfig) -> LoadedModel:
    """Load weights and tokenizer.

    Raises: ConfigError where the model cannot be loaded, or the engine does not reproduce its logits.
    """
    model_config = inspect_model(config)
    device = pick_device(config)
    source: dict[str, Any] = {
        "pretrained_model_name_or_path": model_path(config.name),
        "revision": config.revision,
        "trust_remote_code": config.trust_remote_code,
    }
    try:
        tokenizer = AutoTokenizer.from_pretrained(**source)
        model = AutoModelForCausalLM.from_pretrained(
            **source,
            dtype=pick_dtype(config, model_config, device),
            attn_implementation=register_attention(),
            use_safetensors=True,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.name: cannot load {config.name!r}: {error}") from None
    model = pack_experts(pack_linears(model.to(device).eval().requires_grad_(False)))
    loaded = LoadedModel(
        decoder=model.base_model,
        head=model.get_output_embeddings(),
        tokenizer=tokenizer,
        stop_token_ids=_stop_token_ids(model, tokenizer),
        config=model.config,
        device=device,
        think_tags=find_think_tags(tokenizer, config.think_tags),
    )
    _check_logits(config.name, model, loaded)
    return loaded


def predictor_path(config: ModelConfig) -> Path:
    """The file of the importance predictor: the configured one, or the one beside the model's files.

    Raises: ConfigError where there is none.
    """
    wanted = "an importance predictor, which jobs/label.py and jobs/train_predictor.py make, for"
    return _file_of(config, "predictor", config.predictor, wanted)


def load_importance(config: ModelConfig, model: LoadedModel) -> ImportancePredictor:
    """The importance predictor for `model`, on its device.

    Raises: ConfigError where there is none, or it was made for another model.
    """
    path = predictor_path(config)
    known = model_id(pinned(config))
    predictor = load_predictor(path, model=known, hidden_size=model.config.hidden_size)
    return pack_linears(predictor.to(device=model.device, dtype=torch.float32))


def thoughts_path(config: ModelConfig) -> Path:
    """The file that tells thoughts apart: the configured one, or the one beside the model's files.

    Raises: ConfigError where there is none.
    """
    wanted = "what jobs/calibrate_thoughts.py has written for"
    return _file_of(config, "thoughts", config.thoughts, wanted)


def load_thought_types(
    config: ModelConfig, model_config: PretrainedConfig, policy: Policy
) -> Thoughts:
    """How the thoughts of a model are told apart; not at all for a policy that does not ask.

    Raises: ConfigError where a policy asks and that is not known, or only of another model.
    """
    if "thought" not in policy.requires:
        return Thoughts()
    num_layers = model_config.num_hidden_layers
    known = model_id(pinned(config))
    return load_thoughts(thoughts_path(config), model=known, num_layers=num_layers)


def _file_of(config: ModelConfig, key: str, configured: str | None, wanted: str) -> Path:
    """The file `configured` as `model.KEY`, else KEY.safetensors beside the model's files; ConfigError where it is none."""
    path = Path(configured or Path(model_path(config.name)) / f"{key}.safetensors")
    if not path.is_file():
        raise ConfigError(
            f"model.{key} must be the path of {wanted} {config.name!r}, got {configured!r}; or take a policy.name that"
            " needs none, such as rkv, snapkv, window or full"
        )
    return path


def _stop_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    generation_config = model.generation_config
    found = generation_config.eos_token_id if generation_config is not None else None
    if found is None:
        found = tokenizer.eos_token_id
    return frozenset([found] if isinstance(found, int) else found or ())


@torch.inference_mode()
def _check_logits(name: str, model: PreTrainedModel, loaded: LoadedModel) -> None:
    """The engine's logits must be the model's own, computed with its own attention.

    Some models scale logits after the head, or attend in ways of their own, and would otherwise go on in silence.
    """
    window = getattr(model.config, "sliding_window", None) or 0
    first = max(CHECKED_TOKENS, window if window <= LONGEST_CHECKED_WINDOW else 0)
    length = first + 2 * CHECKED_TOKENS
    token_ids = torch.arange(length, device=loaded.device)[None] % model.config.vocab_size
    model.set_attn_implementation("eager")
    expected = model(input_ids=token_ids, use_cache=False).logits[0].float()
    model.set_attn_implementation(ATTENTION_NAME)
    try:
        found = _arena_logits(loaded, token_ids, first)
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


def _arena_logits(loaded: LoadedModel, token_ids: torch.Tensor, first: int) -> torch.Tensor:
    """float32 logits [T, vocabulary] of `token_ids` [1, T] as the engine comes by them: `first` and `CHECKED_TOKENS` in two
    chunks of a prompt, the others in decode steps."""
    length, device = token_ids.shape[1], loaded.device
    arena = KVArena(arena_shape(loaded.config, Full(), loaded.decoder.dtype), 1, length, device)
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
        loaded.decoder(
            input_ids=token_ids[:, start:stop],
            position_ids=positions[:, start:stop],
            use_cache=False,
            kv_step=step,
        ).last_hidden_state
        for (start, stop), step in steps.items()
    ]
    return loaded.head(torch.cat(hidden_states, dim=1))[0].float()
