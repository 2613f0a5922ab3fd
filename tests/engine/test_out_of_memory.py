"""What the engine does with freed memory."""

import ctypes
import subprocess
import sys

import pytest

BLOCKS = """
import resource
from dynts_batch.engine.out_of_memory import keep_memory, return_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(2**27)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

keep_memory()
first, second = new_pages(), new_pages()
return_memory()
print(first, second, new_pages())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="glibc's own")
def test_freed_blocks_are_kept_until_they_are_returned() -> None:
    """A page is cleared by the system when it is first touched."""
    done = subprocess.run([sys.executable, "-c", BLOCKS], capture_output=True, check=True)
    first, second, returned = map(int, done.stdout.split())
    assert first > 10
    assert second < first / 10
    assert returned > first / 2
