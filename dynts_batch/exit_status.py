"""How a job ends: its exit status, and one line instead of a traceback for what a user did wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable

from dynts_batch.errors import ConfigError, DyntsError, InputError, RunDirError

EXIT_OK = 0
EXIT_BROKEN = 1
EXIT_UNUSABLE = 2
"""A setting, the input or the run directory is unusable; argparse ends with it too."""
EXIT_ROWS_FAILED = 3
EXIT_LIMIT = 4
"""run.max_cost_usd or run.max_hours stopped the run before its last row."""
EXIT_SIGNAL = 128
"""Plus the number of the signal, as shells have it."""


def exit_status_of(job: Callable[[], int], *, hint: str = "") -> int:
    """The status that `job` returns, or that of the error it raises, which is printed.

    `hint` tells what to do after a break-off that is not a user's mistake.
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
