"""Decode steps on a CPU, recorded: a model's modules cost as much Python as a small model's
arithmetic.

A step is recorded once for each batch size that lasts, as the flat list of its torch operations. It
is then run from that list: the same operations on the same tensors, so the same bits. For one of
our own the list has the function behind it. A step must read and write at fixed addresses, and
repeating it must change nothing.
"""

import logging
from collections import Counter
from collections.abc import Callable

import torch
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from dynts_batch.kvcache.native import implementations

log = logging.getLogger(__name__)

#: Steps of one batch size before it is recorded. A recording takes as long as some 100 steps.
RECORD_AFTER = 300
#: Steps that a new record runs beside the model's modules. If one differs, recording ends for good.
NUM_PROVED = 4
#: Batch sizes that are kept, the newest. A record takes some 2 MB per layer of the model.
MAX_RECORDS = 8
#: A step with such an operation depends on values, which a list of operations cannot follow.
CHANGING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class RecordedSteps:
    """Runs `step` from its recorded operations if it can.

    `step` is a function from a number of lanes to their next token ids [R].
    """

    def __init__(self, step: Callable[[int], torch.Tensor]) -> None:
        self._step = step
        self._recorded: dict[int, GraphModule] = {}
        self._num_runs: Counter[int] = Counter()
        self._can_record = True

    def run(self, num_lanes: int) -> torch.Tensor:
        self._num_runs[num_lanes] += 1
        num_runs = self._num_runs[num_lanes]
        if self._can_record and num_runs > RECORD_AFTER and num_lanes not in self._recorded:
            self._record(num_lanes)
        if num_lanes not in self._recorded:
            return self._step(num_lanes)
        token_ids = self._recorded[num_lanes]()
        if num_runs <= RECORD_AFTER + NUM_PROVED:
            expected = self._step(num_lanes)
            if not torch.equal(token_ids, expected):
                self._refuse("it differs when it is repeated")
                return expected
        return token_ids

    def _record(self, num_lanes: int) -> None:
        try:
            recorded = make_fx(lambda: self._step(num_lanes))()
        except RuntimeError as error:  # the step reads a value on the host
            self._refuse(str(error).partition("\n")[0])
            return
        calls = [node for node in recorded.graph.nodes if node.op == "call_function"]
        changing = [c.target for c in calls if CHANGING & set(getattr(c.target, "tags", ()))]
        if changing:
            self._refuse(f"{changing[0]} depends on values")
            return
        # Only now: a plain function has no tags, nor a schema from which torch knows that it must
        # not be dropped.
        for call in calls:
            call.target = implementations.get(call.target, call.target)
        recorded.recompile()
        if len(self._recorded) == MAX_RECORDS:
            oldest = next(iter(self._recorded))
            del self._recorded[oldest], self._num_runs[oldest]
        self._recorded[num_lanes] = recorded

    def _refuse(self, reason: str) -> None:
        log.info("decoding runs the model's modules, its step cannot be recorded: %s", reason)
        self._can_record = False
        self._recorded.clear()
