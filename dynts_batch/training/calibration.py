"""From the sparsity of a model's traces to the file that tells its thoughts apart, and the picture of why."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dynts_batch.kvcache.model_id import ModelId
from dynts_batch.kvcache.thoughts import save_thoughts
from dynts_batch.report.line_chart import Series, line_chart
from dynts_batch.training.densities import GRID, Calibration, calibrate, density

#: Points of a density that are drawn.
_DRAWN = slice(None, None, 4)


def write_calibration(out: Path, traces: Sequence[np.ndarray], *, model: ModelId) -> Calibration:
    """Calibrate `model` on the sparsity of its traces, [num_layers, steps] each; write the thresholds to `out` and the
    densities beside it."""
    found = calibrate(traces)
    notes = {"num_traces": str(len(traces))} | {
        f"layer_{x.layer}": f"three modes in {x.share:.0%} of prompts, depth {x.depth:.2f}"
        for x in found.layers
    }
    save_thoughts(out, found.thoughts, model=model, notes=notes)
    out.with_suffix(".svg").write_text(_picture(traces, found))
    return found


def _picture(traces: Sequence[np.ndarray], found: Calibration) -> str:
    """The mean of the prompts' densities in each layer, and the thresholds where there are some."""
    chosen = set(found.thoughts.layers)
    series = []
    for x in found.layers:
        mean = np.mean([density(trace[x.layer]) for trace in traces], axis=0)
        name = f"layer {x.layer}{', chosen' if x.layer in chosen else ''}"
        points = zip(GRID[_DRAWN].tolist(), mean[_DRAWN].tolist(), strict=True)
        series.append(Series(name, tuple(points)))
    top = max(y for line in series for _, y in line.points)
    if chosen:
        thresholds = {
            "execution below": found.thoughts.low,
            "transition above": found.thoughts.high,
        }
        series += [Series(name, ((x, 0.0), (x, top))) for name, x in thresholds.items()]
    return line_chart(
        series,
        title="Sparsity of attention at the decode steps, mean over prompts",
        x_label="share of stored tokens with negligible attention",
        y_label="density",
    )
