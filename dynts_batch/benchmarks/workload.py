"""What is measured: a model, and prompts with the number of tokens that each must generate.

Contenders in other environments import it too. So it needs torch and transformers, and nothing of
this package.
"""

import json
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

#: What stands around each problem of a file.
PROMPT = "{}\n\nThink step by step, and put your final answer within \\boxed{{}}."


@dataclass(frozen=True)
class Workload:
    """The model and the load.

    Without `model` it is a random Qwen2 with grouped-query attention, the same for every contender.
    With the defaults it has about 20 M parameters.
    """

    model: str | None = None
    """Folder of a real model; the sizes below are not its own then."""
    problems: str | None = None
    """JSON lines with a question each, the prompts of a real model."""

    batch_size: int = 16
    num_requests: int | None = None
    """None: one batch."""
    prompt_tokens: int = 64
    max_new_tokens: int = 2048
    budget: int = 512
    window_size: int = 128
    keep_ratio: float = 0.4
    hidden_size: int = 512
    intermediate_size: int = 1408
    num_layers: int = 6
    num_heads: int = 8
    num_kv_heads: int = 2
    vocab_size: int = 8192
    dtype: str = "float32"
    kv_gib: float = 0.25
    """KV memory that each contender may fill with its own largest batch. For equal-memory only."""

    @property
    def model_config(self) -> PreTrainedConfig:
        if self.model is not None:
            return AutoConfig.from_pretrained(self.model)
        return Qwen2Config(
            vocab_size=self.vocab_size,
            hidden_size=self.hidden_size,
            intermediate_size=self.intermediate_size,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.num_heads,
            num_key_value_heads=self.num_kv_heads,
            max_position_embeddings=65536,
        )

    def make_model(self) -> PreTrainedModel:
        torch.manual_seed(0)
        device, dtype = "cuda" if torch.cuda.is_available() else "cpu", getattr(torch, self.dtype)
        if self.model is not None:
            model = AutoModelForCausalLM.from_pretrained(self.model, dtype=dtype).to(device)
        else:
            with torch.device(device):
                model = AutoModelForCausalLM.from_config(self.model_config, dtype=dtype)
        return model.eval().requires_grad_(False)

    @property
    def head_dim(self) -> int:
        config = self.model_config
        own = getattr(config, "head_dim", None)
        return own or config.hidden_size // config.num_attention_heads

    @property
    def kv_bytes_per_token(self) -> int:
        config, itemsize = self.model_config, getattr(torch, self.dtype).itemsize
        return 2 * config.num_hidden_layers * config.num_key_value_heads * self.head_dim * itemsize

    @property
    def retained_len(self) -> int:
        """Tokens that an eviction leaves if the prompt is protected."""
        candidates = self.budget - self.prompt_tokens - self.window_size
        return self.prompt_tokens + self.window_size + int(candidates * self.keep_ratio)

    def load(self) -> "Load":
        """Problems, or prompts of one length with random tokens,
        and one number of new tokens for all."""
        num_requests = self.num_requests or self.batch_size
        if self.problems is not None:
            read = self.prompts(num_requests)
            return Load(read, [self.max_new_tokens] * len(read), self.batch_size)
        generator = torch.Generator().manual_seed(0)
        # Ids below 256, so that the embedded model's tokenizer knows them.
        prompts = torch.randint(0, 256, (num_requests, self.prompt_tokens), generator=generator)
        return Load(prompts.tolist(), [self.max_new_tokens] * num_requests, self.batch_size)

    def prompts(self, num_requests: int) -> list[list[int]]:
        """The first problems, as chats with the model."""
        assert self.problems is not None, "a file of problems"
        tokenizer = AutoTokenizer.from_pretrained(self.model)
        with open(self.problems, encoding="utf-8") as file:
            lines = [json.loads(line) for line, _ in zip(file, range(num_requests), strict=False)]
        chats = [[{"role": "user", "content": PROMPT.format(line["question"])}] for line in lines]
        texts = [
            tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            for chat in chats
        ]
        return tokenizer(texts, add_special_tokens=False)["input_ids"]


@dataclass(frozen=True)
class Load:
    """`prompts[i]` must generate exactly `num_new_tokens[i]` tokens, greedily.

    At most `batch_size` run together.
    """

    prompts: list[list[int]]
    num_new_tokens: list[int]
    batch_size: int

    @property
    def total_new_tokens(self) -> int:
        return sum(self.num_new_tokens)

    def shortened(self, num_new_tokens: int) -> "Load":
        """One batch with few new tokens, for a warm-up."""
        few = [min(n, num_new_tokens) for n in self.num_new_tokens[: self.batch_size]]
        return replace(self, prompts=self.prompts[: self.batch_size], num_new_tokens=few)

    def batches(self) -> list["Load"]:
        """Static batches, in order."""
        return [
            Load(
                self.prompts[i : i + self.batch_size],
                self.num_new_tokens[i : i + self.batch_size],
                self.batch_size,
            )
            for i in range(0, len(self.prompts), self.batch_size)
        ]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)
