"""Calibration finds the modes, minima and layers that synthetic sparsities were made with,
and says when there are none."""

import numpy as np
import pytest

from dynts_batch.training.densities import GRID, calibrate, density, modes


def mixture(seed: int, *centres: float, spread: float = 0.02, count: int = 600) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(np.array(centres)[np.arange(count) % len(centres)], spread)


def trace(seed: int, *layers: tuple[float, ...]) -> np.ndarray:
    return np.stack([mixture(seed + 100 * i, *centres) for i, centres in enumerate(layers)])


def test_a_density_is_the_definitions_and_integrates_to_one() -> None:
    values = mixture(0, 0.3, 0.7)
    bandwidth = values.std() * len(values) ** (-1 / 5)
    for place in (0, 120, 200, 280):
        kernels = np.exp(-(((GRID[place] - values) / bandwidth) ** 2) / 2) / np.sqrt(2 * np.pi)
        assert density(values)[place] == pytest.approx(kernels.mean() / bandwidth)
    assert density(values).sum() * (GRID[1] - GRID[0]) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("centres", [(0.5,), (0.2, 0.8), (0.1, 0.5, 0.9), (0.2, 0.4, 0.6, 0.8)])
def test_every_mode_is_found_where_it_is(centres: tuple[float, ...]) -> None:
    found = modes(density(mixture(1, *centres)))
    assert GRID[found] == pytest.approx(np.array(centres), abs=0.03)


def test_the_layers_with_three_modes_give_the_thresholds() -> None:
    shown = (0.2, 0.5, 0.8)
    traces = [trace(seed, (0.5,), shown, (0.3, 0.7), shown) for seed in range(5)]
    found = calibrate(traces)
    assert found.thoughts.layers == (1, 3)
    assert found.thoughts.low == pytest.approx(0.35, abs=0.04)
    assert found.thoughts.high == pytest.approx(0.65, abs=0.04)
    assert [x.share for x in found.layers] == [0, 1, 0, 1]


def test_of_more_than_four_layers_those_with_the_deepest_minima_are_taken() -> None:
    near, far = (0.38, 0.5, 0.62), (0.2, 0.5, 0.8)
    traces = [trace(seed, far, near, far, far, near, far) for seed in range(3)]
    found = calibrate(traces)
    assert all(x.qualifies for x in found.layers)
    assert found.thoughts.layers == (0, 2, 3, 5)


def test_a_layer_needs_most_prompts_and_without_one_there_is_one_type() -> None:
    three, one = trace(0, (0.2, 0.5, 0.8)), trace(1, (0.5,))
    assert calibrate([three, three, one]).thoughts.layers == (0,)
    assert calibrate([three, one]).thoughts.layers == ()
    constant = np.full((1, 50), 0.4)
    assert calibrate([constant]).thoughts.layers == ()
