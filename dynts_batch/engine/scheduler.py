"""Which sequence runs, and in which lane: the queue, the lanes, and the prompts in progress.

Plain Python, no tensors. Knows nothing about models, policies or memory. Their owner is told when a
sequence changes its lane.
"""

import time
from collections import deque
from collections.abc import Callable

from dynts_batch.engine.sequence import PREFILL_CHUNK, Sequence

#: Most prompt tokens of a step, padding included. It bounds the activations; products of more rows
#: are no faster.
MAX_PREFILL_TOKENS = 2048


class Scheduler:
    """At most `max_seqs` sequences in as many lanes, the decoding ones first.

    `move(source, target, cache_len)` is called when a sequence that has stored `cache_len` tokens
    changes its lane. With `shares_prompts`, a prompt is processed once, and other sequences with
    the same prompt wait for it.
    """

    def __init__(
        self,
        max_seqs: int,
        move: Callable[[int, int, int], None],
        *,
        shares_prompts: bool = False,
    ) -> None:
        self._max_seqs, self._move, self._shares_prompts = max_seqs, move, shares_prompts
        self._waiting: deque[Sequence] = deque()
        #: The sequence in each lane. None is a hole that the next admission fills.
        self._lanes: list[Sequence | None] = []
        #: Sequences whose prompts are not wholly processed, by lane. All have processed equally
        #: much.
        self._prefilling: dict[int, Sequence] = {}

    @property
    def num_waiting(self) -> int:
        return len(self._waiting)

    @property
    def num_running(self) -> int:
        """Sequences in lanes, decoding or not."""
        return sum(sequence is not None for sequence in self._lanes)

    @property
    def stored_tokens(self) -> int:
        return sum(sequence.cache_len for sequence in self._lanes if sequence is not None)

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def clear(self) -> None:
        """Forget all sequences."""
        self._waiting.clear()
        self._lanes.clear()
        self._prefilling.clear()

    def prefilling(self) -> dict[int, Sequence]:
        """The sequences whose prompts go on, by lane. If there are none, waiting ones begin."""
        for lane in [lane for lane, s in self._prefilling.items() if s.is_decoding]:
            del self._prefilling[lane]
        if not self._prefilling:
            self._prefilling = self._admit()
        return dict(self._prefilling)

    def copying(self, prompt_token_ids: list[int] | None) -> dict[int, Sequence]:
        """The next waiting sequences with this prompt, which is already stored, by their new lanes.

        None: no prompt is stored. There are none while prompts are in progress: they decode at
        once, but would be in lanes behind those prompts.
        """
        taken: list[Sequence] = []
        is_under_way = any(not s.is_decoding for s in self._prefilling.values())
        num_free = 0 if is_under_way else self._max_seqs - self.num_running
        while self._waiting and len(taken) < num_free:
            if self._waiting[0].prompt_token_ids != prompt_token_ids:
                break
            taken.append(self._waiting.popleft())
        return self._place(taken)

    def is_next(self, prompt_token_ids: list[int]) -> bool:
        """Whether the next waiting sequence has this prompt. If none waits, one may still come."""
        return not self._waiting or self._waiting[0].prompt_token_ids == prompt_token_ids

    def decoding(self) -> dict[int, Sequence]:
        """The sequences past their prompts, by lane. They are in the first lanes; holes are filled
        from the end."""
        lanes = self._lanes
        found = [lane for lane, s in enumerate(lanes) if s is not None and s.is_decoding]
        num_decoding = len(found)
        for lane in range(num_decoding):
            if lanes[lane] is None:
                source = found.pop()
                moved = lanes[source]
                assert moved is not None
                self._move(source, lane, moved.cache_len)
                lanes[lane], lanes[source] = moved, None
        while lanes and lanes[-1] is None:
            lanes.pop()
        return {lane: s for lane, s in enumerate(lanes[:num_decoding]) if s is not None}

    def retire(self) -> list[Sequence]:
        """Take the finished sequences out of their lanes."""
        finished = []
        for lane, sequence in enumerate(self._lanes):
            if sequence is not None and sequence.finish_reason is not None:
                finished.append(sequence)
                self._lanes[lane] = None
                self._prefilling.pop(lane, None)
        return finished

    def _admit(self) -> dict[int, Sequence]:
        """Give waiting sequences free lanes, holes first, and return them by lane."""
        admitted = self._next_waiting()
        if any(len(s.prompt_chunk) < s.prefill_tokens for s in admitted):
            # New ones stay behind the decoding lanes for several steps. The shortest join those
            # first.
            self.decoding()
            admitted.sort(key=lambda sequence: sequence.prefill_tokens)
        return self._place(admitted)

    def _place(self, admitted: list[Sequence]) -> dict[int, Sequence]:
        free = [lane for lane, sequence in enumerate(self._lanes) if sequence is None]
        free += range(len(self._lanes), self._max_seqs)
        by_lane = dict(zip(free, admitted, strict=False))
        self._lanes += [None] * (max(by_lane, default=-1) + 1 - len(self._lanes))
        for lane, sequence in by_lane.items():
            self._lanes[lane] = sequence
            sequence.admitted_at = time.perf_counter()
        return by_lane

    def _next_waiting(self) -> list[Sequence]:
        """Take as many sequences from the queue as lanes and a step's prompt tokens allow.

        At least one, if there is a lane.
        """
        num_running = self.num_running
        max_tokens = PREFILL_CHUNK if num_running else MAX_PREFILL_TOKENS
        taken: list[Sequence] = []
        longest = 0
        while self._waiting and num_running + len(taken) < self._max_seqs:
            longest = max(longest, len(self._waiting[0].prompt_chunk))
            if taken and longest * (len(taken) + 1) > max_tokens:
                break
            if self._shares_prompts and self._is_among(taken):
                break
            taken.append(self._waiting.popleft())
        return taken

    def _is_among(self, taken: list[Sequence]) -> bool:
        """Whether one of `taken` has the prompt of the next waiting sequence."""
        prompt = self._waiting[0].prompt_token_ids
        return any(sequence.prompt_token_ids == prompt for sequence in taken)
