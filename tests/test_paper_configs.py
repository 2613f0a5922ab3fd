"""The paper's runs as it published them: both models, six benchmarks, one complete file each."""

from pathlib import Path

import pytest

from dynts_batch.config_file import load_config
from dynts_batch.kvcache.policies import make_policy

FOLDER = Path(__file__).parents[1] / "configs" / "paper"
MODELS = {
    "r1-llama-8b": ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", 0.3),
    "r1-qwen-7b": ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", 0.4),
}
#: Budget and window of the two models (arXiv 2601.18383).
BENCHMARKS = {
    "aime24": ((5000, 2000), (5000, 2000)),
    "aime25": ((5000, 2000), (5000, 2000)),
    "amc23": ((5000, 2000), (5000, 2000)),
    "gpqa-diamond": ((5000, 2500), (5000, 2000)),
    "math500": ((3000, 1000), (3000, 1500)),
    "gaokao2023en": ((3000, 1000), (3000, 1500)),
}


def test_there_is_a_run_for_every_model_and_benchmark_and_no_other() -> None:
    expected = {f"{model}-{benchmark}.yaml" for model in MODELS for benchmark in BENCHMARKS}
    assert {path.name for path in FOLDER.iterdir()} == expected


@pytest.mark.parametrize("benchmark", BENCHMARKS)
@pytest.mark.parametrize("model", MODELS)
def test_settings_are_the_published_ones(model: str, benchmark: str) -> None:
    config = load_config(str(FOLDER / f"{model}-{benchmark}.yaml"))
    name, keep_ratio = MODELS[model]
    budget, window = BENCHMARKS[benchmark][list(MODELS).index(model)]
    policy, sampling = config.policy, config.sampling
    assert config.model.name == name
    assert (policy.budget, policy.window_size, policy.keep_ratio) == (budget, window, keep_ratio)
    assert (sampling.temperature, sampling.top_p, sampling.top_k) == (0.6, 0.95, 20)
    assert (sampling.max_new_tokens, sampling.num_samples) == (16_384, 5)
    assert make_policy(policy).name == "dynts"
    assert config.cost.usd_per_gpu_hour, "else a right answer has no price"
