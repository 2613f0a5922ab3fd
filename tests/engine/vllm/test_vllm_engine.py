"""vLLM as a second engine, with the real vLLM:
`pytest tests/engine/vllm` in an environment that has it.

Needs no weights: the embedded model, and tiny random ones.
"""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from local_run import finish_run
from safetensors.torch import load_file, save_file

from dynts_batch.config import (
    Config,
    CostConfig,
    EngineConfig,
    GradingConfig,
    InputConfig,
    MemoryConfig,
    ModelConfig,
    PolicyConfig,
    RunConfig,
    SamplingConfig,
)
from dynts_batch.engine.factory import check_engine, load_engine
from dynts_batch.engine.model.files import model_path
from dynts_batch.errors import ConfigError
from dynts_batch.lab.problems import problem_set
from dynts_batch.lab.tokenizer import build_tokenizer
from dynts_batch.records import Completion, Request
from dynts_batch.report.totals import add_up
from dynts_batch.runner.worker.feed import Feed

pytestmark = [
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.filterwarnings("default"),  # vLLM's own
    pytest.mark.timeout(600),
]

GREEDY = SamplingConfig(temperature=0.0, max_new_tokens=400)
QUESTIONS = [problem.question for problem in problem_set(5, 12)]
#: 128 tokens a block: one block of the embedded model is 0.25 MiB.
BLOCK_GIB = 4 * 2 * 2 * 128 * 32 * 4 / 2**30


def config_of(*, blocks: int = 60, max_seqs: int = 6, **groups) -> Config:
    return Config(
        **{
            "sampling": GREEDY,
            "policy": PolicyConfig("full"),
            "engine": EngineConfig("vllm"),
            "memory": MemoryConfig(
                kv_gib=(blocks + 1) * BLOCK_GIB, max_seqs=max_seqs, max_prompt_tokens=300
            ),
            "run": RunConfig(dir="unused"),
            **groups,
        }
    )


def drain(engine) -> tuple[list[Completion], int]:
    """The completions of all that it has, and after how many steps."""
    found, num_steps = [], 0
    while engine.has_work():
        found += engine.step()
        num_steps += 1
    return found, num_steps


def complete_in_steps(config: Config, prompts=QUESTIONS) -> tuple[dict[str, Completion], int]:
    engine = load_engine(config, num_threads=1)
    try:
        for number, prompt in enumerate(prompts):
            engine.add_request(Request(str(number), prompt=prompt))
        found, num_steps = drain(engine)
        assert sum(c.device_s for c in found) == pytest.approx(engine.busy_s)
        return {c.request_id: c for c in found}, num_steps
    finally:
        engine.close()


def complete(config: Config, prompts=QUESTIONS) -> dict[str, Completion]:
    return complete_in_steps(config, prompts)[0]


def token_ids(completions: dict[str, Completion]) -> dict[str, tuple[int, ...]]:
    return {key: completion.completion_token_ids for key, completion in completions.items()}


@pytest.fixture(scope="module")
def by_vllm() -> dict[str, Completion]:
    return complete(config_of())


def test_greedy_rows_are_those_of_the_arena_engine(by_vllm):
    by_arena = complete(config_of(engine=EngineConfig()))
    same = ("finish_reason", "prompt", "reasoning", "answer", "completion_token_ids", "seed")
    counts = ("prompt_tokens", "reasoning_tokens", "completion_tokens", "peak_cache_len")
    for key, expected in by_arena.items():
        for name in (*same, *counts, "full_kv_bytes", "num_preemptions", "evicted_tokens"):
            assert getattr(by_vllm[key], name) == getattr(expected, name), (key, name)
        assert by_vllm[key].peak_kv_bytes >= expected.peak_kv_bytes  # whole blocks


def test_rows_that_lose_their_cache_are_the_same_and_say_so(by_vllm):
    starved = complete(config_of(blocks=10))
    assert {k: c.completion_token_ids for k, c in starved.items()} == {
        k: c.completion_token_ids for k, c in by_vllm.items()
    }
    hit = [c for c in starved.values() if c.num_preemptions]
    assert hit
    assert all(c.recomputed_tokens >= c.prompt_tokens for c in hit)
    assert all(not c.recomputed_tokens for c in starved.values() if not c.num_preemptions)


def test_a_prompt_that_is_too_long_is_an_error_row_and_the_others_go_on(by_vllm):
    found = complete(config_of(), ["so long " * 400, QUESTIONS[1]])
    assert found["0"].error_type == "PromptTooLongError"
    assert found["1"].completion_token_ids == by_vllm["1"].completion_token_ids


def test_a_token_that_the_model_lacks_is_an_error_row_and_the_others_go_on(by_vllm, tmp_path):
    path = shutil.copytree(model_path("embedded"), tmp_path / "padded")
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["[PAD]"], special_tokens=True)
    tokenizer.save_pretrained(path)
    found = complete(config_of(model=ModelConfig(str(path))), ["7 [PAD]", QUESTIONS[1]])
    assert found["0"].error_type == "BadRowError"
    assert found["1"].completion_token_ids == by_vllm["1"].completion_token_ids


def test_sampled_rows_do_not_depend_on_their_batch_mates():
    sampling = SamplingConfig(temperature=0.8, top_p=0.95, max_new_tokens=60)
    together = complete(config_of(sampling=sampling))
    alone = complete(config_of(sampling=sampling, max_seqs=1))
    assert {k: c.completion_token_ids for k, c in together.items()} == {
        k: c.completion_token_ids for k, c in alone.items()
    }


def test_samples_of_one_prompt_share_its_blocks_and_say_what_they_cannot_know():
    sampling = SamplingConfig(num_samples=4, temperature=0.8, max_new_tokens=200)
    engine = load_engine(config_of(sampling=sampling, blocks=8), num_threads=1)
    for sample_index in range(4):
        engine.add_request(Request("q", sample_index, prompt=" ".join(QUESTIONS[:3])))
    found, _ = drain(engine)
    hits = {
        metric.name: metric.value for metric in engine._llm.get_metrics() if "prefix" in metric.name
    }
    engine.close()
    assert hits["vllm:prefix_cache_hits"] >= 128 * 3  # a block of the prompt for each but the first
    assert len({c.completion_token_ids for c in found}) == 4
    assert all((c.recomputed_tokens is None) == bool(c.num_preemptions) for c in found)


def test_running_out_of_memory_begins_again_with_fewer_sequences(by_vllm, monkeypatch):
    feed = Feed(config_of(), num_threads=1)
    core = feed._engine._llm.engine_core.engine_core
    step, calls = core.step_fn, []

    def out_of_memory_once():
        calls.append(None)
        if len(calls) == 20:
            raise torch.OutOfMemoryError("out of memory")
        return step()

    monkeypatch.setattr(core, "step_fn", out_of_memory_once)
    for number, prompt in enumerate(QUESTIONS):
        feed.add(Request(str(number), prompt=prompt))
    found = []
    while feed.has_work:
        found += feed.step()
    assert feed.max_seqs < 6
    feed.close()
    assert {c.request_id: c.completion_token_ids for c in found} == {
        k: c.completion_token_ids for k, c in by_vllm.items()
    }


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("no_such_argument", 1, "engine.vllm.no_such_argument is no engine argument of vLLM"),
        ("kv_cache_dtype", "no_such_type", "engine.kind=vllm: .*cache_dtype.*got 'no_such_type'"),
    ],
)
def test_an_argument_that_vllm_refuses_is_refused_in_one_line(key, value, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load_engine(config_of(engine=EngineConfig("vllm", {key: value})), num_threads=1)
    assert "\n" not in str(caught.value)


def test_ngram_speculation_saves_steps_and_changes_no_greedy_row():
    arguments = {
        "speculative_config": {
            "method": "ngram",
            "num_speculative_tokens": 3,
            "prompt_lookup_max": 3,
        }
    }
    plain, num_steps = complete_in_steps(config_of())
    found, num_fewer = complete_in_steps(config_of(engine=EngineConfig("vllm", arguments)))
    assert token_ids(found) == token_ids(plain)
    assert num_fewer < num_steps
    assert all(not c.num_preemptions and not c.recomputed_tokens for c in found.values())


def test_more_new_tokens_than_the_model_has_positions_are_refused_in_one_line():
    sampling = SamplingConfig(temperature=0.0, max_new_tokens=100_000)
    with pytest.raises(ConfigError, match=r"max_model_len \(100300\) is greater than") as caught:
        load_engine(config_of(sampling=sampling), num_threads=1)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


def quantised(folder: Path) -> str:
    """The embedded model with weights of 8 bits,
    in the format that compressed-tensors and llm-compressor write."""
    source = Path(model_path("embedded"))
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (source / name).exists():
            (folder / name).write_bytes((source / name).read_bytes())
    for template in source.glob("*.jinja"):
        (folder / template.name).write_bytes(template.read_bytes())
    weights = {}
    for name, weight in load_file(source / "model.safetensors").items():
        if weight.dim() == 2 and "proj" in name:
            scale = weight.float().abs().amax(1, keepdim=True) / 127
            weights[f"{name}_scale"] = scale
            weight = (weight.float() / scale).round().to(torch.int8)
        weights[name] = weight
    save_file(weights, folder / "model.safetensors")
    eight_bits = {"num_bits": 8, "type": "int", "symmetric": True}
    scheme = {
        "targets": ["Linear"],
        "weights": {**eight_bits, "strategy": "channel", "dynamic": False},
        "input_activations": {**eight_bits, "strategy": "token", "dynamic": True},
    }
    settings = json.loads((source / "config.json").read_text())
    settings["quantization_config"] = {
        "quant_method": "compressed-tensors",
        "format": "int-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
        "config_groups": {"group_0": scheme},
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return str(folder)


def test_a_checkpoint_of_8_bits_answers_as_the_plain_one(by_vllm, tmp_path):
    """Whoever took its integers for weights, without their scales, would answer nothing."""
    model = ModelConfig(quantised(tmp_path / "w8a8"), dtype="bfloat16")
    found = complete(config_of(model=model))
    same = [found[key].answer == completion.answer for key, completion in by_vllm.items()]
    assert sum(same) >= 0.7 * len(same)


def make_adapter(folder: Path, *, scale: float) -> str:
    """A LoRA adapter of rank 4 for the embedded model's query projections."""
    folder.mkdir()
    torch.manual_seed(0)
    weights = {}
    for layer in range(4):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        weights[f"{name}.lora_A.weight"] = torch.randn(4, 128) * scale
        weights[f"{name}.lora_B.weight"] = torch.randn(128, 4) * scale
    save_file(weights, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return str(folder)


def test_an_adapter_changes_the_rows_and_an_empty_one_none(by_vllm, tmp_path):
    plain = {k: c.completion_token_ids for k, c in by_vllm.items()}
    rows = []
    for name, scale in (("empty", 0.0), ("strong", 1.0)):
        lora = make_adapter(tmp_path / name, scale=scale)
        found = complete(config_of(engine=EngineConfig("vllm", {"max_lora_rank": 8}, lora)))
        rows.append({k: c.completion_token_ids for k, c in found.items()})
    assert rows[0] == plain
    assert rows[1] != plain


def test_an_adapter_is_part_of_what_the_run_is(tmp_path):
    def identity(lora):
        return check_engine(config_of(engine=EngineConfig("vllm", {}, lora)), on_gpu=False).identity

    one = identity(make_adapter(tmp_path / "one", scale=1.0))
    same = identity(make_adapter(tmp_path / "same", scale=1.0))
    other = identity(make_adapter(tmp_path / "other", scale=0.5))
    assert one == same
    assert one != other
    with pytest.raises(ConfigError, match=r"engine\.lora must be the folder of a LoRA adapter"):
        identity(str(tmp_path))


def save_with_tokenizer(model, folder: Path) -> str:
    model.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)


def tiny_deepseek(folder: Path) -> str:
    from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

    torch.manual_seed(0)
    config = DeepseekV2Config(
        vocab_size=len(build_tokenizer()),
        hidden_size=64,
        intermediate_size=96,
        moe_intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_routed_experts=4,
        num_experts_per_tok=2,
        n_shared_experts=1,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        kv_lora_rank=512,
        q_lora_rank=None,
        qk_rope_head_dim=64,
        qk_nope_head_dim=32,
        v_head_dim=32,
        max_position_embeddings=2048,
        eos_token_id=1,
    )
    return save_with_tokenizer(DeepseekV2ForCausalLM(config), folder)


def tiny_hybrid(folder: Path) -> str:
    from transformers import Lfm2Config, Lfm2ForCausalLM

    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=len(build_tokenizer()),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention", "conv", "full_attention"],
        # As the published configurations have it: vLLM reads these.
        conv_dim=128,
        block_dim=128,
        block_ff_dim=256,
        block_multiple_of=256,
        block_ffn_dim_multiplier=1.0,
        block_auto_adjust_ff_dim=False,
        max_position_embeddings=2048,
        eos_token_id=1,
    )
    return save_with_tokenizer(Lfm2ForCausalLM(config), folder)


@pytest.mark.parametrize("make", [tiny_deepseek, tiny_hybrid])
def test_a_model_that_the_arena_cannot_hold_runs(make, tmp_path):
    model = ModelConfig(make(tmp_path / "model"), dtype="float32")
    with pytest.raises(ConfigError):
        check_engine(config_of(model=model, engine=EngineConfig()), on_gpu=False)
    config = config_of(
        model=model,
        input=InputConfig("embedded", prompt_column="question", limit=6),
        sampling=SamplingConfig(temperature=0.0, max_new_tokens=20),
        memory=MemoryConfig(kv_gib=0.1, max_seqs=4, max_prompt_tokens=300),
        run=RunConfig(dir=str(tmp_path / "run"), shard_rows=2),
        grading=GradingConfig("none"),
        cost=CostConfig(usd_per_gpu_hour=1.0),
    )
    totals = add_up(finish_run(config))
    assert totals.num_answers == 6
    assert totals.completion_tokens > 0
    assert totals.mean_peak_bytes >= totals.mean_full_bytes > 0  # whole blocks
    assert totals.dollars.total > 0
