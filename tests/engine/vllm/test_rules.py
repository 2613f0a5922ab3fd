"""What a run by vLLM refuses, told without vLLM."""

import re
from importlib.util import find_spec

import pytest

from dynts_batch.config import (
    Config,
    EngineConfig,
    MemoryConfig,
    ModelConfig,
    PolicyConfig,
    RunConfig,
    SamplingConfig,
    WorkersConfig,
)
from dynts_batch.config_rules import validate
from dynts_batch.engine.factory import check_engine
from dynts_batch.errors import ConfigError


def refused(**groups) -> str:
    config = Config(
        **{
            "policy": PolicyConfig("full"),
            "engine": EngineConfig("vllm"),
            "memory": MemoryConfig(kv_gib=1),
            **groups,
        }
    )
    with pytest.raises(ConfigError) as caught:
        check_engine(config, on_gpu=False)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (
            {"policy": PolicyConfig("window", budget=100, window_size=20)},
            "policy.name must be full .* got window",
        ),
        ({"policy": PolicyConfig("full", quantize="int4")}, "policy.quantize must be false"),
        ({"run": RunConfig(trace_rows=3)}, "run.trace_rows must be 0"),
        ({"sampling": SamplingConfig(max_thinking_tokens=9)}, "sampling.max_thinking_tokens"),
        ({"sampling": SamplingConfig(logprobs=True)}, "sampling.logprobs must be left out"),
        ({"workers": WorkersConfig(num_gpus=1.5)}, "workers.num_gpus must be a whole number"),
        ({"engine": EngineConfig("vllm", {"model": "x"})}, "engine.vllm.model .* model.name"),
        ({"engine": EngineConfig("vllm", {"max_num_seqs": 3})}, "memory.max_seqs"),
        ({"engine": EngineConfig("vllm", {"disable_log_stats": True})}, "sets it itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_contradicts_vllm_is_refused_in_one_line(groups, words):
    assert re.search(words, refused(**groups))


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_a_machine_without_vllm_says_what_to_install():
    assert "dynts-batch[vllm]" in refused(model=ModelConfig("embedded"))


@pytest.mark.parametrize("engine", [EngineConfig(vllm={"x": 1}), EngineConfig(lora="folder")])
def test_what_only_vllm_knows_needs_it(engine):
    config = Config(engine=engine)
    with pytest.raises(ConfigError, match=r"needs engine\.kind=vllm"):
        validate(config)


def test_the_arena_is_on_one_gpu():
    config = Config(policy=PolicyConfig("full"), workers=WorkersConfig(num_gpus=2))
    with pytest.raises(ConfigError, match=r"at most 1 when engine.kind is arena.*vllm spreads"):
        check_engine(config, on_gpu=False)
