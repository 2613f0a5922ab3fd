"""The decode attention in C, for float32 on a CPU, built by the machine's own C compiler when first needed.

torch's attention is made for many queries: with one query a row, this reads the cache more than twice as fast, and each
row only as far as it reaches. Where there is no compiler, or for other types, the engine uses torch.
"""

import ctypes
import logging
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch

from dynts_batch.kvcache.probs import Options

SOURCE = Path(__file__).parent / "decode_attention.c"
FLAGS = (
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-shared",
    "-fPIC",
)
#: Floats that the C code takes at a time: head_dim must be a multiple.
VECTOR = 16

log = logging.getLogger(__name__)
#: torch knows the attention as an operation, so that a decode step can be recorded.
_operations = torch.library.Library("dynts_batch", "FRAGMENT")
_operations.define(
    "decode_attention(Tensor query, Tensor keys, Tensor values, Tensor last_slots, Tensor positions,"
    " Tensor stored_positions, Tensor? sinks, int? sliding_window, float scale) -> Tensor"
)


def can_run(dtype: torch.dtype, device: torch.device, head_dim: int) -> bool:
    """Whether `decode_attention` takes such keys and values here; builds it on the first call."""
    fits = dtype == torch.float32 and device.type == "cpu" and head_dim % VECTOR == 0
    return fits and _library() is not None


def decode_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    last_slots: torch.Tensor,
    positions: torch.Tensor,
    stored_positions: torch.Tensor,
    options: Options,
) -> torch.Tensor:
    """Attention of one new token a row, query [B, H, 1, D], to slots 0..last_slots [B] of keys and values [B, K, S, D].

    `positions` [B] are the new tokens', `stored_positions` [B, K or 1, S] int32 the slots': a sliding window hides the
    slots that have left it. Returns [B, H, 1, D].
    """
    return torch.ops.dynts_batch.decode_attention(
        query, keys, values, last_slots, positions, stored_positions,
        options.sinks, options.sliding_window, options.scale,
    )  # fmt: skip


def _decode_attention(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    last_slots: torch.Tensor,
    positions: torch.Tensor,
    stored_positions: torch.Tensor,
    sinks: torch.Tensor | None,
    sliding_window: int | None,
    scale: float,
) -> torch.Tensor:
    library = _library()
    assert library is not None, "ask can_run first"
    batch, num_heads, _, head_dim = query.shape
    num_kv_heads, num_slots = keys.shape[1:3]
    group = num_heads // num_kv_heads
    query = query.contiguous()
    sinks = None if sinks is None else sinks.float().contiguous()
    out = torch.empty_like(query)
    padded = -(-num_slots // VECTOR) * VECTOR
    # Passed on, since torch may bring an OpenMP of its own, whose number of threads is not the C code's.
    num_threads = torch.get_num_threads()
    scratch = torch.empty(num_threads * group * padded)
    library(
        out.data_ptr(), query.data_ptr(), keys.data_ptr(), values.data_ptr(), last_slots.data_ptr(),
        positions.data_ptr(), stored_positions.data_ptr(), None if sinks is None else sinks.data_ptr(),
        scratch.data_ptr(), batch, num_kv_heads, group, head_dim, keys.stride(0), keys.stride(1),
        stored_positions.stride(0), stored_positions.stride(1) if stored_positions.shape[1] > 1 else 0,
        sliding_window or 0, padded, num_threads, scale,
    )  # fmt: skip
    return out


_operations.impl("decode_attention", _decode_attention, "CPU")


@cache
def _library() -> Callable[..., None] | None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        log.info("no C compiler here: decoding on the CPU uses torch's attention, which is slower")
        return None
    # Built anew by every process: what suits this machine's processor may not run on another that shares its disk.
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "decode_attention.so"
        built = subprocess.run(
            [compiler, *FLAGS, str(SOURCE), "-o", str(target), "-lm"],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode != 0:
            log.warning("cannot build %s, using torch's attention: %s", SOURCE.name, built.stderr)
            return None
        function = ctypes.CDLL(str(target)).decode_attention
    function.restype = None
    function.argtypes = [ctypes.c_void_p] * 9 + [ctypes.c_long] * 11 + [ctypes.c_float]
    return function
