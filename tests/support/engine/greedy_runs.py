"""Greedy completions of random prompts, by the engine and by Hugging Face `generate`."""

import random
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.records import Request

MAX_NEW_TOKENS = 40


def random_prompts(seed: int, count: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [
        [rng.randrange(7, 700) for _ in range(rng.choice((1, 5, 17, 40)))] for _ in range(count)
    ]


def greedy_engine(
    folder: Path | str, max_seqs: int, policy: PolicyConfig = PolicyConfig(name="full")
) -> Engine:
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=MAX_NEW_TOKENS)
    return Engine.load(
        ModelConfig(name=str(folder)), policy, sampling, MemoryConfig(max_seqs=max_seqs)
    )


def run(engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
    requests = (Request(str(i), prompt_token_ids=prompt) for i, prompt in enumerate(prompts))
    completions = {completion.request_id: completion for completion in engine.generate(requests)}
    return [list(completions[str(i)].completion_token_ids) for i in range(len(prompts))]


def huggingface(folder: Path | str, prompts: list[list[int]]) -> list[list[int]]:
    model = AutoModelForCausalLM.from_pretrained(folder)
    return [
        model.generate(torch.tensor([prompt]), max_new_tokens=MAX_NEW_TOKENS, do_sample=False)[
            0, len(prompt) :
        ].tolist()
        for prompt in prompts
    ]
