"""vLLM, run by an interpreter that has it."""

import os
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # or its CPU time would be another process's

from vllm import LLM, SamplingParams

from dynts_batch.benchmarks.contenders.answers import Generate, answer


def make(settings: dict[str, Any]) -> Generate:
    engine = LLM(
        settings["model"],
        dtype=settings["dtype"],
        max_model_len=settings["max_model_len"],
        max_num_seqs=settings["batch_size"],
        kv_cache_memory_bytes=settings["kv_bytes"],
        enable_prefix_caching=False,
        skip_tokenizer_init=True,
    )

    def generate(load: dict[str, Any]) -> list[list[int]]:
        results = engine.generate(
            [{"prompt_token_ids": ids} for ids in load["prompts"]],
            [_exactly(n) for n in load["num_new_tokens"]],
            use_tqdm=False,
        )
        return [list(result.outputs[0].token_ids) for result in results]

    return generate


def _exactly(num_new_tokens: int) -> SamplingParams:
    return SamplingParams(
        temperature=0, max_tokens=num_new_tokens, ignore_eos=True, detokenize=False
    )


if __name__ == "__main__":
    answer(make)
