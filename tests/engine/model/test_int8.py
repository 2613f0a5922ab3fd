"""Weights in 8 bits: close to what they round, the same bits whatever the company,
and refused where nothing multiplies so."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from greedy_runs import random_prompts, run
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2Config, Qwen2ForCausalLM

from dynts_batch.config import (
    Config,
    EngineConfig,
    InputConfig,
    MemoryConfig,
    ModelConfig,
    PolicyConfig,
    RunConfig,
    SamplingConfig,
)
from dynts_batch.config_rules import validate
from dynts_batch.engine import Engine
from dynts_batch.engine.model.int8 import products, rounding
from dynts_batch.engine.model.int8.weight import CHANNELS_AT_ONCE, Int8Weight, check_int8
from dynts_batch.engine.model.logits_check import check_logits
from dynts_batch.engine.model.packing import pack_linears
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.native import can_run

HAS_VNNI = torch.cpu.get_capabilities().get("avx512_vnni", False)
IN_C = can_run(products.SOURCE, torch.float32, torch.device("cpu"), 16)
needs_int8 = pytest.mark.skipif(not (HAS_VNNI or IN_C), reason="nothing multiplies in 8 bits")


def rounded(numbers: torch.Tensor) -> torch.Tensor:
    """In double precision: multiples of a 127th of each row's largest number,
    which float32 rounds to."""
    scales = numbers.float().abs().amax(-1, keepdim=True) / 127
    return (numbers.float() / scales).round().double() * scales.double()


@needs_int8
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
def test_a_product_is_that_of_the_rounded_numbers(dtype: torch.dtype, bias: bool) -> None:
    """More channels than are rounded at once, and inputs of more than one axis."""
    torch.manual_seed(0)
    plain = nn.Linear(96, CHANNELS_AT_ONCE + 32, bias=bias, dtype=dtype).requires_grad_(False)
    weight, offset = plain.weight, plain.bias if bias else torch.zeros(())
    packed = pack_linears(nn.Sequential(plain), Int8Weight)[0]
    for shape in [(1, 96), (5, 96), (2, 3, 96), (1, 1, 96)]:
        inputs = torch.randn(shape, dtype=dtype) * 10 ** torch.randn(shape[:-1])[..., None].to(
            dtype
        )
        expected = rounded(inputs) @ rounded(weight).T + offset.double()
        torch.testing.assert_close(packed(inputs), expected.to(dtype), rtol=1e-2, atol=1e-4)
        assert packed(inputs).dtype == dtype


@pytest.mark.skipif(
    not can_run(rounding.SOURCE, torch.float32, torch.device("cpu"), 16), reason="no C compiler"
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("shape", "zero_point"), [((1, 16), 0), ((33, 96), 128), ((2, 3, 4096), 0)]
)
def test_in_c_rows_are_rounded_and_scaled_to_the_same_bits(
    dtype: torch.dtype, shape: tuple[int, ...], zero_point: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zeros, ties, and numbers at both ends of the range among them."""
    torch.manual_seed(0)
    numbers = (torch.randn(shape) * 10 ** (9 * torch.randn(shape[:-1]))[..., None]).to(dtype)
    numbers.view(-1)[:4] = torch.tensor([127.0, 0.5, -1.5, 2.5])
    numbers[..., -1, :].mul_(0 if shape[0] > 1 else 1)
    bias, sums = torch.randn(shape[-1]), torch.randn(shape) * 1e6
    codes, scales = rounding.round_rows(numbers, zero_point)
    outputs = [rounding.scale_rows(sums, scales, b, dtype) for b in (None, bias)]
    monkeypatch.setattr(rounding, "can_run_both", lambda *_: False)
    expected_codes, expected_scales = rounding.round_rows(numbers, zero_point)
    assert torch.equal(codes, expected_codes)
    assert torch.equal(scales, expected_scales)
    for output, b in zip(outputs, (None, bias), strict=True):
        assert torch.equal(output, rounding.scale_rows(sums, scales, b, dtype))


@pytest.mark.skipif(not IN_C, reason="no AVX2, or no C compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("num_channels", [1, 16, 64, 177])
@pytest.mark.parametrize("width", [4, 16, 916, 4100])
def test_products_in_c_are_exact(dtype: torch.dtype, num_channels: int, width: int) -> None:
    """The largest codes of either sign are among them, and any number of rows of a tile; more rows
    and wider ones than stay in a cache at once, too. So oneDNN's have the same bits."""
    torch.manual_seed(0)
    codes, scales = rounding.rounded(torch.randn(num_channels, width))
    codes[-2:], codes[-1] = 127, -127
    offsets = torch.randn(num_channels)
    rows = torch.randn(101, width).to(dtype)
    rows[:2] = torch.tensor([[1], [-1]])
    for bias in (None, offsets):
        given = (codes, scales.flatten(), bias)
        product = products.NativeProduct(*given)
        for count in (1, 2, 3, 4, 5, 6, 7, 12, 13, 33, 101):
            numbers = rows[:count].view(count, 1, width)
            row_codes, row_scales = rounding.rounded(numbers)
            sums = (row_codes.long() @ codes.long().T).float() * scales.flatten()
            expected = sums * row_scales if bias is None else sums * row_scales + bias
            in_c = product(numbers)
            in_columns = numbers.mT.contiguous().mT
            assert torch.equal(product(in_columns), in_c)
            assert in_c.shape == (count, 1, num_channels)
            assert torch.equal(in_c, expected.to(dtype))
            if HAS_VNNI:
                assert torch.equal(in_c, products.OneDnnProduct(*given)(numbers))


@pytest.mark.parametrize(
    ("capabilities", "has_compiler", "width", "kind"),
    [
        ({"avx2", "avx512_vnni"}, True, 64, "NativeProduct"),
        ({"avx2", "avx512_vnni"}, True, 65, "OneDnnProduct"),
        ({"avx2", "avx512_vnni"}, False, 64, "OneDnnProduct"),
        ({"avx2", "avx512_vnni", "amx_int8"}, True, 64, "OneDnnProduct"),
        ({"avx2", "avx512_vnni", "overflow"}, False, 64, "got AVX2 and no C compiler$"),
        ({"avx2", "avx512_vnni", "amx_int8", "overflow"}, True, 64, "NativeProduct"),
        ({"avx2"}, True, 64, "NativeProduct"),
        ({"avx2"}, True, 65, "AVX2, a C compiler and widths .* got products of width 65$"),
        ({"avx2"}, False, 64, "got AVX2 and no C compiler$"),
        (set(), True, 64, "got a CPU without either$"),
    ],
)
def test_what_multiplies_is_exact_and_the_fastest(
    capabilities: set[str], has_compiler: bool, width: int, kind: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(capabilities, True))
    monkeypatch.setattr(products, "can_run", lambda *_: has_compiler)
    monkeypatch.setattr(products, "onednn_is_exact", lambda: "overflow" not in capabilities)
    if kind.endswith("Product"):
        assert products.product_kind(width).__name__ == kind
    else:
        with pytest.raises(ConfigError, match=rf"^model\.weights=int8 needs a CPU .*{kind}"):
            products.product_kind(width)


def test_an_overflow_of_onednn_is_seen() -> None:
    """ONEDNN_MAX_CPU_ISA makes any x86 CPU one without VNNI."""
    script = f"from {products.__name__} import *; print(onednn_is_exact())"
    seen = {}
    for isa in ("AVX2", "ALL"):
        environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa}
        seen[isa] = subprocess.check_output(
            [sys.executable, "-c", script], env=environment, text=True
        ).strip()
    assert seen["AVX2"] == "False" or not torch.cpu.get_capabilities().get("avx2", False)
    assert seen["ALL"] == str(HAS_VNNI) or not torch.cpu.get_capabilities().get("avx2", False)


@needs_int8
def test_zeros_stay_zeros_and_what_is_no_number_stays_none() -> None:
    plain = nn.Linear(64, 64, bias=False).requires_grad_(False)
    plain.weight[3] = 0
    packed = pack_linears(nn.Sequential(plain), Int8Weight)[0]
    inputs = torch.ones(4, 64)
    inputs[0], inputs[1, 5], inputs[2, 6] = 0, torch.nan, torch.inf
    outputs = packed(inputs)
    assert not outputs[0].any()
    assert outputs[3, 3] == 0
    assert not outputs[1:3].isfinite().any()
    assert outputs[3].isfinite().all()


@needs_int8
def test_a_row_has_the_same_bits_alone_and_among_others() -> None:
    """In its batch-mates' company one may be a hundred times as large."""
    torch.manual_seed(0)
    packed = pack_linears(nn.Sequential(nn.Linear(512, 640).requires_grad_(False)), Int8Weight)[0]
    rows = torch.randn(64, 512) * torch.logspace(-2, 2, 64)[:, None]
    together = packed(rows)
    for count in (1, 2, 3, 7, 16, 31, 33):
        assert torch.equal(packed(rows[:count]), together[:count])


@needs_int8
@pytest.mark.parametrize("architecture", ["qwen2", "gpt_oss"])
def test_rows_depend_on_no_batch_mate_and_the_identity_says_how_weights_are(
    architecture: str, tiny_model_dirs: dict[str, Path]
) -> None:
    """Experts are rounded too."""
    found = ModelConfig(str(tiny_model_dirs[architecture]), weights="int8", device="cpu")
    prompts = random_prompts(seed=3, count=6)

    def completions(max_seqs: int) -> list[list[int]]:
        sampling = SamplingConfig(temperature=0.0, max_new_tokens=20)
        memory = MemoryConfig(max_seqs=max_seqs)
        return run(Engine.load(found, PolicyConfig("full"), sampling, memory), prompts)

    assert completions(1) == completions(5)
    resolved, plain = resolve_model(found), resolve_model(ModelConfig(found.name, device="cpu"))
    assert (resolved.identity["weights"], plain.identity["weights"]) == ("int8", None)
    older = {key: value for key, value in plain.identity.items() if key != "weights"}
    assert plain.in_todays_words(older) == plain.identity
    assert resolved.in_todays_words(older) == plain.identity, "an older run had no other weights"


@needs_int8
def test_a_last_bit_that_becomes_another_code_is_no_fault_of_the_engine() -> None:
    """Two kernels of attention differ in float32's last bits. Rounded to 8 bits after each of 12
    layers, they move these logits by 8%."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=64, hidden_size=256, intermediate_size=512, num_hidden_layers=12,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.2,
    )  # fmt: skip
    model = pack_linears(Qwen2ForCausalLM(config).eval().requires_grad_(False), Int8Weight)
    check_logits("model", model, model.base_model, model.lm_head, rounds_inputs=True)
    another = nn.Sequential(model.lm_head, nn.Linear(64, 64))
    with pytest.raises(ConfigError, match="must reproduce the logits"):
        check_logits("model", model, model.base_model, another, rounds_inputs=True)


def test_slow_bfloat16_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where oneDNN has none, torch is ten times as slow as int8, without a word."""
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    layer = nn.Linear(16, 16).requires_grad_(False)
    pack_linears(nn.Sequential(layer))
    pack_linears(nn.Sequential(nn.Linear(16, 16).bfloat16()), Int8Weight) if IN_C else None
    assert not caplog.records
    pack_linears(nn.Sequential(layer.bfloat16()))
    assert "model.weights=int8 several times as fast" in caplog.text


def test_it_is_refused_where_nothing_multiplies_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"^model\.weights=int8 needs a CPU, got a model on cuda$"
    ):
        check_int8(torch.device("cuda"))
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    with pytest.raises(ConfigError, match="got a CPU without either"):
        resolve_model(ModelConfig(weights="int8", device="cpu"))
    run_of_int8 = Config(
        model=ModelConfig(weights="int8"),
        input=InputConfig("p.jsonl", prompt_column="p"),
        run=RunConfig("out"),
    )
    validate(run_of_int8)
    half = replace(run_of_int8, model=ModelConfig(weights="int8", dtype="float16"))
    with pytest.raises(ConfigError, match=r"weights must be null when model\.dtype is float16"):
        validate(half)
    with pytest.raises(ConfigError, match=r"model\.weights must be null when engine\.kind is vllm"):
        validate(replace(run_of_int8, engine=EngineConfig("vllm")))
    with pytest.raises(
        ConfigError, match=r"model\.weights must be null when model\.device is cuda"
    ):
        validate(replace(run_of_int8, model=ModelConfig(weights="int8", device="cuda")))


def test_an_operation_is_seen_by_whoever_looks_and_gives_the_same() -> None:
    """Nobody else pays for torch's way to it, and what is no number in memory is refused."""
    numbers, seen = torch.randn(3, 32), []

    class Looking(TorchDispatchMode):
        def __torch_dispatch__(self, called, types, args=(), kwargs=None):
            seen.append(called)
            return called(*args, **(kwargs or {}))

    with torch.profiler.profile() as profile:
        unseen = rounding.round_rows(numbers, 0)
    assert "dynts_batch::round_rows" not in {event.name for event in profile.events()}
    with pytest.raises(NotImplementedError):
        rounding.round_rows(numbers.to("meta"), 0)
    with Looking():
        looked_at = rounding.round_rows(numbers, 0)
    assert torch.ops.dynts_batch.round_rows.default in seen
    assert all(map(torch.equal, unseen, looked_at))
