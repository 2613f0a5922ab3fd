"""OpenVINO GenAI's continuous batching, run by an interpreter that has it;
the model is a folder that `optimum-cli` exported."""

from typing import Any

import numpy as np
import openvino
from openvino_genai import (
    AggregationMode,
    CacheEvictionConfig,
    ContinuousBatchingPipeline,
    GenerationConfig,
    SchedulerConfig,
)

from dynts_batch.benchmarks.contenders.answers import Generate, answer

#: Of its paged cache on a CPU.
BLOCK_TOKENS = 32


def make(settings: dict[str, Any]) -> Generate:
    scheduler = SchedulerConfig()
    scheduler.num_kv_blocks = settings["kv_tokens"] // BLOCK_TOKENS
    scheduler.max_num_seqs = settings["batch_size"]
    if settings["budget"] is not None:
        scheduler.use_cache_eviction = True
        scheduler.cache_eviction_config = CacheEvictionConfig(
            start_size=32,
            recent_size=settings["window_size"],
            max_cache_size=settings["budget"],
            aggregation_mode=AggregationMode.NORM_SUM,
        )
    properties = {"INFERENCE_NUM_THREADS": settings["num_threads"]}
    pipeline = ContinuousBatchingPipeline(settings["model"], scheduler, "CPU", properties)

    def generate(load: dict[str, Any]) -> list[list[int]]:
        prompts = [openvino.Tensor(np.array([ids], dtype=np.int64)) for ids in load["prompts"]]
        results = pipeline.generate(prompts, [_exactly(n) for n in load["num_new_tokens"]])
        return [list(result.m_generation_ids[0]) for result in results]

    return generate


def _exactly(num_new_tokens: int) -> GenerationConfig:
    config = GenerationConfig()
    config.max_new_tokens, config.ignore_eos, config.do_sample = num_new_tokens, True, False
    return config


if __name__ == "__main__":
    answer(make)
