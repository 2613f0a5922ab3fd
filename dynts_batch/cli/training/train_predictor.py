"""Train an importance predictor.

LABELS is a folder that `dynts-batch label` has filled. The predictor and its metrics on held-out
questions go to OUT.safetensors, the learning curve to OUT.svg. Keys are those of
`dynts_batch.training.fitting.FitConfig`.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from dynts_batch.cli.arguments import add_overrides, command_parser
from dynts_batch.config_file import load_settings
from dynts_batch.exit_status import EXIT_OK
from dynts_batch.training.fitting import FitConfig
from dynts_batch.training.pipeline import train_predictor


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("train-predictor", __doc__)
    parser.add_argument("labels", metavar="LABELS")
    parser.add_argument("out", metavar="OUT.safetensors", type=Path)
    add_overrides(parser, "loss=ranking")
    args = parser.parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    metrics = train_predictor(args.labels, args.out, load_settings(FitConfig, args.overrides))
    for name, value in metrics.notes().items():
        print(f"held-out {name}: {value}")
    picture = args.out.with_suffix(".svg")
    print(f"wrote {args.out} and {picture}, measured on {metrics.num_traces} traces")
    return EXIT_OK
