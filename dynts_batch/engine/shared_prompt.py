"""The newest prompt that other samples may share, as it was when it had been processed: all of it,
or what is processed before the first eviction.

They copy it. Owns a lane beside the arena's, in which no sequence decodes. So it contains nothing
that a policy evicts, records or relabels later.
"""

import torch

from dynts_batch.engine.sequence import Sequence
from dynts_batch.kvcache.arena import KVArena

#: The lane has room for a multiple of this many tokens.
ROOM_TOKENS = 256


class SharedPrompt:
    """For the sequences in `arena`. `room_bytes`: what the memory settings leave beside it.

    None: nothing bounds it.
    """

    def __init__(self, arena: KVArena, room_bytes: int | None) -> None:
        self._arena, self._room_bytes = arena, room_bytes
        self._kept: KVArena | None = None
        #: None: nothing is kept.
        self.token_ids: list[int] | None = None
        #: How many of them are stored.
        self.num_tokens = 0
        self._hidden_state: torch.Tensor | None = None

    @property
    def hidden_state(self) -> torch.Tensor:
        """The hidden state of the last stored token, [E]."""
        assert self._hidden_state is not None, "a prompt is kept"
        return self._hidden_state

    def keep(self, lane: int, sequence: Sequence, hidden_state: torch.Tensor) -> None:
        """Keep the prompt of `sequence`, just processed in `lane`, if there is room for it."""
        self.token_ids, self.num_tokens = None, sequence.cache_len
        if not self._has_room(self.num_tokens):
            return
        assert self._kept is not None
        self._kept.take(self._arena, lane, 0, self.num_tokens)
        self.token_ids, self._hidden_state = sequence.prompt_token_ids, hidden_state.clone()

    def give(self, lane: int) -> None:
        """Copy it to `lane`."""
        assert self._kept is not None, "a prompt is kept"
        self._arena.take(self._kept, 0, lane, self.num_tokens)

    def _has_room(self, num_tokens: int) -> bool:
        """Make room for so many tokens, if the memory settings allow it."""
        if self._kept is not None and num_tokens <= self._kept.capacity:
            return True
        self._kept = None
        shape = self._arena.shape
        capacity = -(-num_tokens // ROOM_TOKENS) * ROOM_TOKENS
        if self._room_bytes is not None and shape.bytes_per_sequence(capacity) > self._room_bytes:
            return False
        device = self._arena.positions.device
        self._kept = KVArena(shape, 1, capacity, device, self._arena.key_offsets)
        return True
