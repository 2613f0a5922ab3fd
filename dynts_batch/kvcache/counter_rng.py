"""Counter-based randomness: a draw is a pure function of (key, counter).

So a draw depends on no batch and no restart. Owns the hash only; what is drawn is the caller's
business.
"""

import hashlib

import torch

# The constants of SplitMix64 (Steele, Lea, Flood 2014) as signed 64-bit integers; int64 products
# wrap.
_INCREMENT = 0x9E3779B97F4A7C15 - 2**64
_MIX_1 = 0xBF58476D1CE4E5B9 - 2**64
_MIX_2 = 0x94D049BB133111EB - 2**64


def sequence_key(seed: int, request_id: str, sample_index: int) -> int:
    """The 64-bit key of one sequence's randomness, as a signed integer."""
    digest = hashlib.blake2b(
        f"{seed}\0{sample_index}\0{request_id}".encode(), digest_size=8
    ).digest()
    return int.from_bytes(digest, "little", signed=True)


def uniform(key: torch.Tensor, counter: torch.Tensor) -> torch.Tensor:
    """Uniform draws in [0, 1), float64. `key` and `counter` are int64 and broadcast."""
    bits = _mix(_mix(key) + counter * _INCREMENT)
    return _shift_right(bits, 11).to(torch.float64) * 2.0**-53


def _mix(x: torch.Tensor) -> torch.Tensor:
    x = (x ^ _shift_right(x, 30)) * _MIX_1
    x = (x ^ _shift_right(x, 27)) * _MIX_2
    return x ^ _shift_right(x, 31)


def _shift_right(x: torch.Tensor, num_bits: int) -> torch.Tensor:
    """Logical shift. Torch's own is arithmetic and would drag the sign along."""
    return (x >> num_bits) & ((1 << (64 - num_bits)) - 1)
