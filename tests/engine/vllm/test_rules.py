"""What a run by vLLM refuses, told without vLLM."""

import re
from importlib.util import find_spec
from math import inf

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
from dynts_batch.engine.vllm.arguments import engine_arguments
from dynts_batch.engine.vllm.blocks import Group
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
        ({"sampling": SamplingConfig(logprobs=True)}, "sampling.logprobs must be false"),
        ({"workers": WorkersConfig(num_gpus=1.5)}, "workers.num_gpus must be a whole number"),
        (
            {
                "workers": WorkersConfig(num_gpus=2),
                "engine": EngineConfig("vllm", {"pipeline_parallel_size": 3}),
            },
            r"pipeline_parallel_size must divide workers.num_gpus \(2\), got 3",
        ),
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


def told(num_gpus: int, **arguments) -> dict:
    config = Config(
        policy=PolicyConfig("full"),
        engine=EngineConfig("vllm", arguments),
        memory=MemoryConfig(kv_gib=8),
        workers=WorkersConfig(num_gpus=num_gpus),
    )
    return engine_arguments(config, dtype="bfloat16", on_gpu=True)


@pytest.mark.parametrize(
    ("num_gpus", "num_stages", "num_per_layer"), [(1, 1, 1), (2, 1, 2), (4, 2, 2), (2, 2, 1)]
)
def test_a_model_is_spread_over_the_gpus_of_its_worker(num_gpus, num_stages, num_per_layer):
    arguments = told(num_gpus, **({"pipeline_parallel_size": num_stages} if num_stages > 1 else {}))
    assert arguments["tensor_parallel_size"] == num_per_layer
    assert arguments["distributed_executor_backend"] == ("mp" if num_gpus > 1 else "uni")
    assert arguments["kv_cache_memory_bytes"] * num_gpus == 8 * 2**30  # those of all of them


def test_a_layer_holds_no_more_than_it_looks_back():
    full, window, state = (Group(16, 160, reach) for reach in (inf, 32, None))
    assert [full.num_blocks(n) for n in (8, 16, 320)] == [0.5, 1, 20]
    assert [window.num_blocks(n) for n in (8, 32, 320)] == [0.5, 2, 2]
    assert [state.num_blocks(n) for n in (1, 320)] == [1, 1]


def test_an_argument_of_the_user_comes_before_a_choice_of_ours():
    assert told(1)["async_scheduling"] is False
    assert told(1, async_scheduling=True)["async_scheduling"] is True


@pytest.mark.parametrize("engine", [EngineConfig(vllm={"x": 1}), EngineConfig(lora="folder")])
def test_what_only_vllm_knows_needs_it(engine):
    config = Config(engine=engine)
    with pytest.raises(ConfigError, match=r"needs engine\.kind=vllm"):
        validate(config)


def test_the_arena_is_on_one_gpu():
    config = Config(policy=PolicyConfig("full"), workers=WorkersConfig(num_gpus=2))
    with pytest.raises(ConfigError, match=r"at most 1 when engine.kind is arena.*vllm spreads"):
        check_engine(config, on_gpu=False)
