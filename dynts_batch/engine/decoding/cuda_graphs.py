"""Decode steps as CUDA graphs: one launch instead of a few hundred, for batches of any size.

A step is captured for a few batch sizes. A batch in between runs with the next larger graph. Its
surplus lanes hold no sequence, or one whose prompt is being processed. A step must read and write
at fixed addresses, and repeating it must change nothing.
"""

import logging
from collections.abc import Callable

import torch

from dynts_batch.engine.decoding.decode_inputs import DecodeInputs
from dynts_batch.engine.out_of_memory import is_out_of_memory

log = logging.getLogger(__name__)


def graph_size(num_lanes: int, max_seqs: int) -> int:
    """The captured batch size for `num_lanes`: itself up to 15, then at most an eighth more."""
    spacing = max(1, 1 << (num_lanes.bit_length() - 4)) if num_lanes > 15 else 1
    return min(-(-num_lanes // spacing) * spacing, max_seqs)


class DecodeGraphs:
    """Runs `step` through graphs if it can.

    `step` is a function from a number of lanes to their next token ids [R].
    """

    def __init__(
        self, step: Callable[[int], torch.Tensor], inputs: DecodeInputs, max_seqs: int
    ) -> None:
        self._step, self._inputs, self._max_seqs = step, inputs, max_seqs
        self._graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle()
        self._can_capture = True

    def run(self, num_lanes: int) -> torch.Tensor:
        size = graph_size(num_lanes, self._max_seqs)
        self._inputs.rest_beyond(num_lanes, size)
        if size not in self._graphs and self._can_capture:
            self._capture(size)
        if size not in self._graphs:
            return self._step(num_lanes)
        graph, token_ids = self._graphs[size]
        graph.replay()
        return token_ids[:num_lanes]

    def _capture(self, size: int) -> None:
        current, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(current)
        with torch.cuda.stream(side):
            self._step(size)  # a first run's set-up and compilation may not be captured
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, pool=self._pool):
                token_ids = self._step(size)
        except RuntimeError as error:  # the model's forward pass reads a value on the host
            # capture_end may fail too, after the error that ended the capture.
            if is_out_of_memory(error) or is_out_of_memory(error.__context__ or error):
                raise  # a smaller batch can be captured
            log.warning(
                "decoding without CUDA graphs, this model's step cannot be captured: %s", error
            )
            self._can_capture = False
            return
        self._graphs[size] = graph, token_ids
