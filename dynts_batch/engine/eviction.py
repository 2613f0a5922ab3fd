"""Evicts: finds the sequences that are due, asks the policy what stays, and tells who must know.

The policy chooses and the arena moves. Nothing here asks which policy it is.
"""

from collections.abc import Callable
from collections.abc import Sequence as Listed

from dynts_batch.engine.model_runner import ModelRunner
from dynts_batch.engine.sequence import Sequence
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.kvcache.compaction import ascending
from dynts_batch.kvcache.policy import Policy
from dynts_batch.kvcache.view import Row, Slots

#: Most bytes that an eviction takes beside the arena. One sequence is always evicted.
EVICTION_BYTES = 2**30


def eviction_bytes(policy: Policy, shape: ArenaShape, capacity: int) -> int:
    """Most bytes that an eviction takes beside the arena."""
    return max(policy.eviction_bytes(shape, capacity), EVICTION_BYTES)


class Evictor:
    """`token_text`: the text of a token id. `companions`: what was made for the model."""

    def __init__(
        self,
        policy: Policy,
        arena: KVArena,
        runner: ModelRunner,
        token_text: Callable[[int], str],
        companions: Listed[object],
    ) -> None:
        self._policy, self._arena, self._runner = policy, arena, runner
        self._token_text, self._companions = token_text, companions
        row_bytes = policy.eviction_bytes(arena.shape, arena.capacity)
        self.rows_at_once = max(1, EVICTION_BYTES // row_bytes)

    def plan_look(self, sequence: Sequence) -> None:
        """Ask the policy when it wants to look at a sequence next."""
        sequence.look_at = self._policy.next_look(
            prompt_tokens=len(sequence.prompt_token_ids), num_processed=sequence.num_processed
        )

    def evict(self, decoding: dict[int, Sequence]) -> None:
        """Evict from every unfinished sequence of `decoding` that is due.

        It is due if it has reached the budget, or if the policy wants to look at it. One operation
        takes as many sequences as the free memory allows, because the samples of one prompt are due
        together.
        """
        capacity = self._arena.capacity
        due = {
            lane: sequence
            for lane, sequence in decoding.items()
            if (sequence.cache_len == capacity or sequence.num_processed == sequence.look_at)
            and sequence.finish_reason is None
        }
        if not due:
            return
        self._runner.settle()
        lanes = list(due)
        for start in range(0, len(lanes), self.rows_at_once):
            rows = lanes[start : start + self.rows_at_once]
            self._evict_from({lane: due[lane] for lane in rows})

    def _evict_from(self, due: dict[int, Sequence]) -> None:
        for sequence in due.values():
            self.plan_look(sequence)
        slots = self._view(due)
        for name, column in self._policy.relabel(slots).items():
            self._arena.set_column(name, slots.lanes, column)
        stays = self._policy.stays(slots)
        retained = stays[:, 0, 0].sum(dim=-1).tolist()
        losing = [row for row, s in enumerate(due.values()) if retained[row] < s.cache_len]
        if not losing:
            return
        lanes = [list(due)[row] for row in losing]
        if len(losing) < len(due):
            stays = stays[losing]
        kept_slots = ascending(stays, max(retained[row] for row in losing))
        retained_len = [retained[row] for row in losing]
        self._arena.evict(lanes, kept_slots, retained_len)
        for lane, length in zip(lanes, retained_len, strict=True):
            self._shorten(lane, due[lane], length)
        self._runner.inputs.shorten(lanes, retained_len)

    def _shorten(self, lane: int, sequence: Sequence, retained_len: int) -> None:
        sequence.evict(retained_len)
        if sequence.trace is not None:
            kept_positions = self._arena.positions[lane, ..., :retained_len]
            sequence.trace.observe(kept_positions, sequence.num_processed)

    def _view(self, sequences: dict[int, Sequence]) -> Slots:
        return Slots(
            arena=self._arena,
            rows=[self._row(lane, sequence) for lane, sequence in sequences.items()],
            rules=self._runner.recording.rules,
            token_text=self._token_text,
            companions=self._companions,
        )

    def _row(self, lane: int, sequence: Sequence) -> Row:
        counts = self._policy.counts(
            prompt_tokens=len(sequence.prompt_token_ids),
            answer_tokens=sequence.answer_tokens,
            cache_len=sequence.cache_len,
        )
        return Row(lane, sequence.cache_len, sequence.seq_len, *counts, sequence.key)
