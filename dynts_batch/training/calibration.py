"""Makes, from the sparsity of a model's traces, the file that tells its thoughts apart."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dynts_batch.kvcache.model_id import ModelId
from dynts_batch.kvcache.policies.thinkv.thoughts import save_thoughts
from dynts_batch.report.charts.panel_grid import Panel, panel_grid
from dynts_batch.training.densities import GRID, Calibration, calibrate, density

#: The points of a density that are drawn.
_DRAWN = slice(None, None, 4)


def write_calibration(out: Path, traces: Sequence[np.ndarray], *, model: ModelId) -> Calibration:
    """Calibrate `model` on the sparsity of its traces, [num_layers, steps] each.

    Writes the thresholds to `out` and a picture of the densities beside it.
    """
    found = calibrate(traces)
    notes = {"num_traces": str(len(traces))} | {
        f"layer_{x.layer}": f"three modes in {x.share:.0%} of prompts, depth {x.depth:.2f}"
        for x in found.layers
    }
    save_thoughts(out, found.thoughts, model=model, notes=notes)
    out.with_suffix(".svg").write_text(_picture(traces, found))
    return found


def _picture(traces: Sequence[np.ndarray], found: Calibration) -> str:
    """The mean of the prompts' densities in each layer, and the thresholds in the chosen layers."""
    thoughts, panels = found.thoughts, []
    for x in found.layers:
        mean = np.mean([density(trace[x.layer]) for trace in traces], axis=0)
        points = zip(GRID[_DRAWN].tolist(), mean[_DRAWN].tolist(), strict=True)
        marks = (thoughts.low, thoughts.high) if x.layer in thoughts.layers else ()
        panels.append(Panel(f"layer {x.layer}: {x.share:.0%}", tuple(points), marks))
    chosen = (
        f"chosen in red: execution below {thoughts.low:.3f}, transition above {thoughts.high:.3f}"
        if thoughts.layers
        else "none is chosen"
    )
    return panel_grid(
        panels,
        title=f"Density of sparsity, mean over {len(traces)} prompts, "
        f"and how many of them show three modes;\n{chosen}",
        x_label="share of stored tokens with negligible attention at a decode step",
    )
