"""Judge the answers of a finished run again, generating nothing.

Keys are those of `grading` and input.reference_column, e.g. grading.benchmark=aime, or
grading.kind=my_module:my_function for your own grader. If it breaks off, the same command finishes
it. Exit status: 0, or 2 for a wrong setting or an unusable RUN_DIR.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from dynts_batch.cli.arguments import add_overrides, add_run_dir, command_parser
from dynts_batch.exit_status import EXIT_OK
from dynts_batch.runner.regrade import regrade


def main(arguments: Sequence[str]) -> int:
    parser = command_parser("grade", __doc__)
    add_run_dir(parser)
    add_overrides(parser, "grading.benchmark=aime")
    args = parser.parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    config, regraded = regrade(args.run_dir, args.overrides)
    grading = config.grading
    benchmark = grading.benchmark or "null"
    print(f"grading.kind={grading.kind} grading.benchmark={benchmark} grading.text={grading.text}")
    print(
        f"{regraded.num_correct:,} of {regraded.num_graded:,} judged rows are right (before:"
        f" {regraded.num_correct_before:,} of {regraded.num_graded_before:,});"
        f" {regraded.num_changed:,} of {regraded.num_rows:,} rows changed"
    )
    other = "answer" if grading.text == "completion" else "completion"
    print(f"{regraded.num_text_matters:,} rows differ with grading.text={other}")
    return EXIT_OK
