"""Prompts of unequal length in one forward pass, without tokens that only fill up."""

from collections.abc import Sequence

import torch


class Padding:
    """Chunks of unequal `lengths` that go through the model one after the other, as one row of N
    tokens.

    So padding costs no layer anything. Attention alone takes it, in R rows of T tokens.
    """

    def __init__(self, lengths: Sequence[int], device: torch.device) -> None:
        self._size = len(lengths), max(lengths)
        places = [row * max(lengths) + at for row, n in enumerate(lengths) for at in range(n)]
        self._places = torch.tensor(places, device=device)

    def add(self, packed: torch.Tensor) -> torch.Tensor:
        """[R, T, ...] of the tokens [N, ...], with zeros behind each chunk."""
        rows, length = self._size
        padded = packed.new_zeros(rows * length, *packed.shape[1:])
        return padded.index_copy_(0, self._places, packed).unflatten(0, (rows, length))

    def remove(self, padded: torch.Tensor) -> torch.Tensor:
        """[N, ...] of [R, T, ...]."""
        return padded.flatten(0, 1).index_select(0, self._places)
