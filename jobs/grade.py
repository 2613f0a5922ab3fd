"""Judge the answers of a finished run again, generating nothing: `python jobs/grade.py RUN_DIR [key=value ...]`.

Keys are those of `grading` and input.reference_column, e.g. grading.benchmark=aime, or grading.kind=my_module:my_function
for a grader of your own. The same command again mends one that broke off. Exit status: 0, or 2 for a wrong setting or
an unusable RUN_DIR.
"""

import argparse
import logging
import sys

from dynts_batch.exit_status import EXIT_OK, exit_status_of
from dynts_batch.runner.regrade import regrade


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run_dir", metavar="RUN_DIR", help="folder or URI, as in run.dir")
    parser.add_argument("overrides", metavar="key=value", nargs="*")
    args = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    return exit_status_of(lambda: _grade(args.run_dir, args.overrides))


def _grade(run_dir: str, overrides: list[str]) -> int:
    config, regraded = regrade(run_dir, overrides)
    grading = config.grading
    print(f"grading.kind={grading.kind} grading.benchmark={grading.benchmark or 'null'}")
    print(
        f"{regraded.num_correct:,} of {regraded.num_graded:,} judged rows are right (before:"
        f" {regraded.num_correct_before:,} of {regraded.num_graded_before:,});"
        f" {regraded.num_changed:,} of {regraded.num_rows:,} rows changed"
    )
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
