"""The engines that are compared: ours with each policy, and Hugging Face `generate`.

All run the same random-weight model on the same prompts and generate exactly `max_new_tokens` greedily.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from dynts_batch.config import MemoryConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine.attention import register_attention
from dynts_batch.engine.engine import Engine
from dynts_batch.engine.loader import LoadedModel, model_path
from dynts_batch.kvcache.policies import make_policy
from dynts_batch.kvcache.predictor import ImportancePredictor
from dynts_batch.records import Request

#: Generates for all prompts and returns the completions' token ids.
Contender = Callable[[], list[list[int]]]


@dataclass(frozen=True)
class Workload:
    """An equal batch: `batch_size` prompts of `prompt_tokens` random tokens, `max_new_tokens` each.

    The model is a random Qwen2 with grouped-query attention, about 20 M parameters as the defaults have it.
    """

    batch_size: int = 16
    prompt_tokens: int = 64
    max_new_tokens: int = 2048
    budget: int = 512
    window_size: int = 128
    keep_ratio: float = 0.4
    hidden_size: int = 512
    num_layers: int = 6
    num_heads: int = 8
    num_kv_heads: int = 2
    vocab_size: int = 8192
    dtype: str = "float32"

    def prompts(self) -> list[list[int]]:
        generator = torch.Generator().manual_seed(0)
        shape = (self.batch_size, self.prompt_tokens)
        # The renderer's tokenizer bounds the ids of a prompt.
        return torch.randint(0, 256, shape, generator=generator).tolist()

    def model(self) -> Qwen2ForCausalLM:
        torch.manual_seed(0)
        config = Qwen2Config(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.hidden_size * 11 // 4,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_kv_heads,
            max_position_embeddings=65536,
        )
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return (
            Qwen2ForCausalLM(config)
            .to(device, getattr(torch, self.dtype))
            .eval()
            .requires_grad_(False)
        )


def dynts_batch_engine(workload: Workload, policy_name: str) -> Contender:
    """Our engine with the named policy; `dynts` gets a predictor with random weights, which costs what a real one does."""
    model = workload.model()
    model.set_attn_implementation(register_attention())
    loaded = LoadedModel(
        decoder=model.base_model,
        head=model.lm_head,
        tokenizer=AutoTokenizer.from_pretrained(model_path("embedded")),
        stop_token_ids=frozenset(),
        config=model.config,
        device=model.device,
    )
    policy = make_policy(
        PolicyConfig(policy_name, workload.budget, workload.window_size, workload.keep_ratio)
    )
    predictor = (
        ImportancePredictor(workload.hidden_size).to(model.device) if policy.requires else None
    )
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=workload.max_new_tokens)
    memory = MemoryConfig(max_seqs=workload.batch_size, max_prompt_tokens=workload.prompt_tokens)
    engine = Engine(loaded, policy, predictor, sampling, memory)
    prompts = workload.prompts()

    def run() -> list[list[int]]:
        requests = (Request(str(i), prompt_token_ids=p) for i, p in enumerate(prompts))
        completions = sorted(engine.generate(requests), key=lambda c: int(c.request_id))
        return [list(completion.completion_token_ids) for completion in completions]

    return run


def huggingface_generate(workload: Workload, cache_implementation: str | None = None) -> Contender:
    """`model.generate` in one batch, with the default cache or the one named."""
    model = workload.model()
    token_ids = torch.tensor(workload.prompts(), device=model.device)
    settings: dict[str, Any] = {
        "max_new_tokens": workload.max_new_tokens,
        "do_sample": False,
        "eos_token_id": None,
        "pad_token_id": 0,
    }
    if cache_implementation is not None:
        settings["cache_implementation"] = cache_implementation

    @torch.inference_mode()
    def run() -> list[list[int]]:
        output = model.generate(token_ids, attention_mask=torch.ones_like(token_ids), **settings)
        return output[:, token_ids.shape[1] :].tolist()

    return run


def make_contender(name: str, workload: Workload) -> Contender:
    """`hf-generate`, `hf-static`, or the name of one of our policies.

    Raises: ConfigError for an unknown policy.
    """
    match name:
        case "hf-generate":
            return huggingface_generate(workload)
        case "hf-static":
            return huggingface_generate(workload, "static")
        case _:
            return dynts_batch_engine(workload, name)


def check_lengths(outputs: Sequence[Sequence[int]], workload: Workload) -> None:
    """A benchmark that generated less than it claims would report a speed it does not have."""
    assert [len(output) for output in outputs] == [workload.max_new_tokens] * workload.batch_size
