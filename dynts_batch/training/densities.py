"""Where a model's thoughts part: the layers whose sparsity has three modes, and the thresholds between them.

ThinKV (arXiv 2510.01290) asks for a kernel density estimate a prompt and layer, the four layers that show exactly three
modes, and thresholds at the minima between them, averaged. Not published, and our choices: Scott's bandwidth; a mode
lower than `MIN_MODE` of the highest is none; a layer qualifies when most prompts show three, and of more than four those
with the deepest minima are taken. Knows nothing about models or files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dynts_batch.kvcache.policies.thinkv.thoughts import Thoughts

NUM_LAYERS = 4
NUM_MODES = 3
#: Where densities are known: sparsity is a share.
GRID = np.linspace(0.0, 1.0, 401)
#: Of the highest mode's density.
MIN_MODE = 0.01
#: Values whose kernels are added up at once.
_CHUNK = 4096


@dataclass(frozen=True)
class LayerModes:
    """What the prompts show of one layer: the share of them with exactly three modes, and in these the mean places of
    the two minima, and their mean depth, 1 - density in the minimum / density of the lower mode beside it."""

    layer: int
    share: float
    minima: tuple[float, float]
    depth: float

    @property
    def qualifies(self) -> bool:
        return self.share > 0.5


@dataclass(frozen=True)
class Calibration:
    """`thoughts`, and what led to them: all layers, in order."""

    thoughts: Thoughts
    layers: tuple[LayerModes, ...]


def calibrate(traces: Sequence[np.ndarray]) -> Calibration:
    """From the sparsity of each prompt's trace, [num_layers, steps] each, at least one.

    Where no layer qualifies, `thoughts` has none: there is one type.
    """
    layers = tuple(
        _layer_modes(layer, [density(trace[layer]) for trace in traces])
        for layer in range(len(traces[0]))
    )
    qualified = sorted((x for x in layers if x.qualifies), key=lambda x: -x.depth)[:NUM_LAYERS]
    if not qualified:
        return Calibration(Thoughts(), layers)
    low, high = np.mean([x.minima for x in qualified], axis=0).tolist()
    return Calibration(Thoughts(tuple(sorted(x.layer for x in qualified)), low, high), layers)


def density(values: np.ndarray) -> np.ndarray:
    """Gaussian kernel density estimate of `values` [N] on `GRID`, with Scott's bandwidth."""
    spread = max(float(values.std()), 1e-4)  # all values may be equal
    bandwidth = spread * len(values) ** -0.2
    total = np.zeros_like(GRID)
    for start in range(0, len(values), _CHUNK):
        distance = (GRID[:, None] - values[start : start + _CHUNK]) / bandwidth
        total += np.exp(-0.5 * distance**2).sum(axis=1)
    return total / (len(values) * bandwidth * np.sqrt(2 * np.pi))


def modes(estimate: np.ndarray) -> list[int]:
    """Where on the grid a density has its modes: the local maxima, but those next to nothing."""
    padded = np.concatenate(([-np.inf], estimate, [-np.inf]))
    is_top = (padded[1:-1] > padded[:-2]) & (padded[1:-1] >= padded[2:])
    return np.flatnonzero(is_top & (estimate >= MIN_MODE * estimate.max())).tolist()


def _layer_modes(layer: int, estimates: Sequence[np.ndarray]) -> LayerModes:
    found = [
        (estimate, tops) for estimate in estimates if len(tops := modes(estimate)) == NUM_MODES
    ]
    if not found:
        return LayerModes(layer, 0.0, (0.0, 1.0), 0.0)
    places, depths = [], []
    for estimate, tops in found:
        for left, right in pairwise(tops):
            lowest = left + int(estimate[left:right].argmin())
            places.append(GRID[lowest])
            depths.append(1 - estimate[lowest] / min(estimate[left], estimate[right]))
    low, high = np.reshape(places, (-1, 2)).mean(axis=0).tolist()
    return LayerModes(layer, len(found) / len(estimates), (low, high), float(np.mean(depths)))
