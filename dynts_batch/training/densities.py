"""Where a model's thoughts part: the layers whose sparsity has three modes, and their thresholds.

ThinKV (arXiv 2510.01290) makes a kernel density estimate for each prompt and layer. It takes the
four layers that show exactly three modes, and averages the minima between the modes as thresholds.
Its details are not published; these are our choices:

- The bandwidth is Scott's.
- A mode lower than `MIN_MODE` of the highest one does not count.
- A layer qualifies if most prompts show three modes. Of more than four layers, those with the
  deepest minima are taken.

Knows nothing about models or files.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from dynts_batch.kvcache.policies.thinkv.thoughts import Thoughts

NUM_LAYERS = 4
NUM_MODES = 3
#: The points at which densities are known, from 0 to 1 because sparsity is a share.
GRID = np.linspace(0.0, 1.0, 401)
#: Lowest density of a mode, as a share of the highest mode's.
MIN_MODE = 0.01
#: How many values' kernels are added up at once.
_CHUNK = 4096


@dataclass(frozen=True)
class LayerModes:
    """What the prompts show of one layer.

    share: of all prompts, those with exactly three modes. The rest are means over these prompts.
    minima: the places of the two minima between the modes.
    depth: 1 - density in a minimum / density of the lower mode beside it.
    """

    layer: int
    share: float
    minima: tuple[float, float]
    depth: float

    @property
    def qualifies(self) -> bool:
        return self.share > 0.5


@dataclass(frozen=True)
class Calibration:
    """`thoughts`, and the figures of all layers, in order, that led to them."""

    thoughts: Thoughts
    layers: tuple[LayerModes, ...]


def calibrate(traces: Sequence[np.ndarray]) -> Calibration:
    """Calibrate on the sparsity of at least one prompt's trace, [num_layers, steps] each.

    If no layer qualifies, `thoughts` has none: all thoughts are of one type.
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
    """The grid points at which a density has its modes: local maxima that are not negligible."""
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
