"""Quantisation equals its plain reference bit for bit, errs within its bound,
and packs to the promised size."""

import pytest
import torch
from number_formats import dequantise_group, hard_groups, quantise_group

from dynts_batch.kvcache.stores.formats import (
    FP8,
    GROUP,
    INT4,
    NVFP4,
    TERNARY,
    Format,
    dequantise,
    pack,
    quantise,
    unpack,
    unscaled,
)

FORMATS = pytest.mark.parametrize("form", [NVFP4, TERNARY, FP8, INT4], ids=lambda form: form.name)


@FORMATS
def test_quantising_equals_the_plain_reference_bit_for_bit(form: Format) -> None:
    groups = hard_groups()
    found = quantise(groups, form)
    numbers = dequantise(found, form)
    zero_points = found.zero_points
    assert form.has_zero_point == (zero_points is not None)
    for row, group in enumerate(groups.tolist()):
        codes, scale, zero_point = quantise_group(group, form.name)
        assert found.codes[row].tolist() == codes, group
        assert found.scales[row].item() == scale, group
        assert zero_points is None or zero_points[row].item() == zero_point, group
        assert numbers[row].tolist() == dequantise_group(codes, scale, zero_point, form.name)


@pytest.mark.parametrize("form", [NVFP4, TERNARY, FP8], ids=lambda form: form.name)
def test_the_round_trip_errs_by_half_a_step_at_most(form: Format) -> None:
    groups = hard_groups()
    quantised = quantise(groups, form)
    scales = quantised.scales
    step = scales.float().clamp(min=2.0**-9)[:, None]
    steps = groups.abs() / step
    magnitudes = torch.tensor(form.magnitudes)
    above = torch.searchsorted(magnitudes, steps).clamp(1, len(magnitudes) - 1)
    half_gap = (magnitudes[above] - magnitudes[above - 1]) / 2
    # The scale itself is rounded or cut at 448:
    # the largest number may lie beyond the last magnitude.
    bound = torch.maximum(half_gap, steps - magnitudes[-1])
    error = (dequantise(quantised, form) - groups).abs() / step
    assert (error <= bound * (1 + 1e-5) + 1e-6).all()
    is_small = groups.abs().amax(-1) <= 448 * form.top
    assert (steps[is_small].amax(-1) <= form.top * 17 / 16 * (1 + 1e-6)).all()


@pytest.mark.parametrize(("form", "bound"), [(NVFP4, 0.2), (FP8, 0.06), (INT4, 0.1)])
def test_the_error_does_not_grow_where_numbers_are_small(form: Format, bound: float) -> None:
    """It did where scales are subnormal: rounded down by a third,
    they cut the largest numbers of a group off."""
    groups = torch.randn(2000, GROUP)
    extent = groups.abs().amax(-1, keepdim=True)
    for size in (10.0, 1.0, 0.5, 0.25, 0.1, 0.05):
        quantised = quantise(groups * size, form)
        error = (dequantise(quantised, form) - groups * size).abs() / (extent * size)
        assert error.max() < bound, size


def test_int4_errs_by_half_a_step_wherever_the_group_lies() -> None:
    """And by what the rounding of scale and zero-point takes from the outermost numbers,
    .03 of a step."""
    distances = torch.tensor([0.0, 1, 30, 1000, 5000])[:, None, None]
    groups = (torch.randn(5, 400, GROUP) + distances * torch.randn(5, 400, 1)).flatten(0, 1)
    quantised = quantise(groups, INT4)
    steps = (dequantise(quantised, INT4) - groups).abs() / quantised.scales.float()[:, None]
    assert steps.max() < 0.5315
    extent = groups.amax(-1) - groups.amin(-1)
    largest = torch.maximum(extent / 15, groups.abs().amax(-1) / 2048)
    assert (quantised.scales.float() <= largest * 17 / 16).all()


@pytest.mark.parametrize("form", [NVFP4, TERNARY, INT4], ids=lambda form: form.name)
@pytest.mark.parametrize("distance", [0.0, 1.0, 120.0])
def test_quantising_again_changes_nothing(form: Format, distance: float) -> None:
    groups = torch.randn(500, GROUP)
    extent = groups.amax(-1, keepdim=True) - groups.amin(-1, keepdim=True)
    groups = (groups + distance * extent * torch.randn(500, 1).sign()) * 44  # no subnormal scales
    quantised = quantise(groups, form)
    again = quantise(dequantise(quantised, form), form)
    assert torch.equal(quantised.codes, again.codes)
    assert torch.equal(quantised.scales.float(), again.scales.float())
    if form.has_zero_point:
        assert torch.equal(quantised.zero_points, again.zero_points)


@pytest.mark.parametrize(("form", "bits"), [(NVFP4, 4.5), (TERNARY, 2.5), (FP8, 8.5), (INT4, 5.5)])
def test_packed_numbers_take_exactly_the_promised_bits(form: Format, bits: float) -> None:
    quantised = quantise(torch.randn(7, 5, GROUP), form)
    codes, scales, zero_points = quantised
    packed = pack(codes, form)
    assert packed.dtype == torch.uint8
    assert scales.itemsize == 1
    num_bytes = packed.nbytes + scales.nbytes
    numbers = unscaled(packed, form)
    if zero_points is not None:
        num_bytes += zero_points.nbytes
        numbers = numbers + zero_points[..., None] / 8
    assert 8 * num_bytes / codes.numel() == bits == form.bits_per_number
    assert torch.equal(unpack(packed, form), codes)
    assert torch.equal(numbers * scales.float()[..., None], dequantise(quantised, form))
