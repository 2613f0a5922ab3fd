"""Quantisation equals its plain reference bit for bit, errs within its bound, and packs to the promised size."""

import pytest
import torch
from number_formats import dequantise_group, hard_groups, quantise_group

from dynts_batch.kvcache.formats import (
    FP8,
    GROUP,
    NVFP4,
    TERNARY,
    Format,
    dequantise,
    pack,
    quantise,
    unpack,
    unscaled,
)

FORMATS = pytest.mark.parametrize("form", [NVFP4, TERNARY, FP8], ids=lambda form: form.name)


@FORMATS
def test_quantising_equals_the_plain_reference_bit_for_bit(form: Format) -> None:
    groups = hard_groups()
    codes, scales = quantise(groups, form)
    numbers = dequantise(codes, scales, form)
    for row, group in enumerate(groups.tolist()):
        expected, scale = quantise_group(group, form.name)
        assert codes[row].tolist() == expected, group
        assert scales[row].item() == scale, group
        assert numbers[row].tolist() == dequantise_group(expected, scale, form.name)


@FORMATS
def test_the_round_trip_errs_by_half_a_step_at_most(form: Format) -> None:
    groups = hard_groups()
    codes, scales = quantise(groups, form)
    step = scales.float().clamp(min=2.0**-9)[:, None]
    steps = groups.abs() / step
    magnitudes = torch.tensor(form.magnitudes)
    above = torch.searchsorted(magnitudes, steps).clamp(1, len(magnitudes) - 1)
    half_gap = (magnitudes[above] - magnitudes[above - 1]) / 2
    # The scale itself is rounded or cut at 448: the largest number may lie beyond the last magnitude.
    bound = torch.maximum(half_gap, steps - magnitudes[-1])
    error = (dequantise(codes, scales, form) - groups).abs() / step
    assert (error <= bound * (1 + 1e-5) + 1e-6).all()
    is_normal = (scales.float() >= 2.0**-6) & (groups.abs().amax(-1) <= 448 * magnitudes[-1])
    assert (steps[is_normal].amax(-1) <= magnitudes[-1] * 17 / 16 * (1 + 1e-6)).all()


@pytest.mark.parametrize("form", [NVFP4, TERNARY], ids=lambda form: form.name)
def test_quantising_again_changes_nothing(form: Format) -> None:
    groups = torch.randn(500, GROUP) * 448  # scales that are no subnormal numbers
    codes, scales = quantise(groups, form)
    again, scales_again = quantise(dequantise(codes, scales, form), form)
    assert torch.equal(codes, again)
    assert torch.equal(scales.float(), scales_again.float())


@pytest.mark.parametrize(("form", "bits"), [(NVFP4, 4.5), (TERNARY, 2.5), (FP8, 8.5)])
def test_packed_numbers_take_exactly_the_promised_bits(form: Format, bits: float) -> None:
    codes, scales = quantise(torch.randn(7, 5, GROUP), form)
    packed = pack(codes, form)
    assert packed.dtype == torch.uint8
    assert scales.itemsize == 1
    assert 8 * (packed.nbytes + scales.nbytes) / codes.numel() == bits == form.bits_per_number
    assert torch.equal(unpack(packed, form), codes)
    numbers = unscaled(packed, form) * scales.float()[..., None]
    assert torch.equal(numbers, dequantise(codes, scales, form))
