"""How a job ends: its exit status, and one line instead of a traceback for a user's mistake."""

from __future__ import annotations

import sys
from collections.abc import Callable

from dynts_batch.errors import ConfigError, DyntsError, InputError, RunDirError

EXIT_OK = 0
EXIT_BROKEN = 1
EXIT_UNUSABLE = 2
"""A setting, the input or the run directory is unusable. argparse uses the same status."""
EXIT_ROWS_FAILED = 3
EXIT_LIMIT = 4
"""run.max_cost_usd or run.max_hours stopped the run before its last row."""
EXIT_SIGNAL = 128
"""Plus the number of the signal, as in shells."""


def exit_status_of(job: Callable[[], int], *, hint: str = "") -> int:
    """The status that `job` returns, or that of the error that it raises, which is printed.

    `hint` says what to do after an end that is not a user's mistake.
    """
    try:
        return job()
    except (ConfigError, InputError, RunDirError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_UNUSABLE
    except DyntsError as error:
        print(f"error: {error}. {hint}".rstrip(), file=sys.stderr)
        return EXIT_BROKEN
    except KeyboardInterrupt:
        print(f"interrupted. {hint}".rstrip(), file=sys.stderr)
        return EXIT_SIGNAL + 2
    except BrokenPipeError:  # the reader of our output, `head` or `less`, has seen enough
        sys.stderr.close()
        return EXIT_OK
