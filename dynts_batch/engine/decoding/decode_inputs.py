"""What a decode step reads of every lane, kept on the device.

Steps update it there, so the host sends something only if sequences come, move or lose slots. A
CUDA graph finds it in place. Knows nothing about models or policies.
"""

from collections.abc import Mapping

import torch

from dynts_batch.engine.sequence import Sequence


class DecodeInputs:
    """Inputs of the lanes, int64 [max_seqs] each.

    `token_ids` to process, `slots` where their keys go, their `positions`, and the sequences'
    `rng_keys`. `lanes` counts the lanes.
    """

    def __init__(self, max_seqs: int, device: torch.device) -> None:
        self._columns = torch.zeros(4, max_seqs, dtype=torch.int64, device=device)
        self.token_ids, self.slots, self.positions, self.rng_keys = self._columns
        self.lanes = torch.arange(max_seqs, device=device)
        #: The length of each lane's prompt.
        self.prompt_tokens = torch.zeros(max_seqs, dtype=torch.int64, device=device)
        #: Log-probability of each lane's newest token, under the distribution that it was drawn
        #: from.
        self.logprobs = torch.zeros(max_seqs, dtype=torch.float32, device=device)
        #: A slot per lane that may be overwritten: where its next token will go, or any slot of a
        #: free lane.
        self.resting_slots = torch.zeros(max_seqs, dtype=torch.int64, device=device)

    def first(self, num_lanes: int) -> tuple[torch.Tensor, ...]:
        """Lanes, token_ids, slots, positions and rng_keys of the first lanes, [R] each."""
        columns = (self.lanes, self.token_ids, self.slots, self.positions, self.rng_keys)
        return tuple(column[:num_lanes] for column in columns)

    def write(self, sequences: dict[int, Sequence]) -> None:
        """Take the state of sequences, by lane, from the host."""
        rows = [
            (s.newest_token_id, s.cache_len, s.num_processed, s.key) for s in sequences.values()
        ]
        device = self._columns.device
        lanes = torch.tensor(list(sequences), device=device)
        self._columns[:, lanes] = torch.tensor(rows, device=device).T

    def replace(self, token_ids: Mapping[int, int]) -> None:
        """What lanes process next, by lane, in place of what they sampled."""
        lanes, ids = torch.tensor(list(token_ids.items()), device=self._columns.device).T
        self.token_ids[lanes] = ids

    def shorten(self, lanes: list[int], cache_len: list[int]) -> None:
        """Set what `lanes` store after their sequences have lost slots."""
        index, slots = torch.tensor([lanes, cache_len], device=self._columns.device)
        self.slots[index] = slots

    def rest(self, lanes: torch.Tensor, next_slots: torch.Tensor) -> None:
        """The prompts in `lanes` [R] are stored up to `next_slots` [R]."""
        self.resting_slots[lanes] = next_slots

    def rest_beyond(self, num_lanes: int, size: int) -> None:
        """Let the lanes from `num_lanes` to `size` run along in a step without decoding.

        They write keys, and queries that are remembered by position. Their next prompt chunk
        overwrites both.
        """
        for column in (self.slots, self.positions):
            column[num_lanes:size] = self.resting_slots[num_lanes:size]

    def move(self, source: int, target: int) -> None:
        for column in (*self._columns, self.prompt_tokens):
            column[target] = column[source]

    def advance(self, token_ids: torch.Tensor) -> None:
        """The first lanes have stored a token and sampled `token_ids` [R]."""
        num_lanes = len(token_ids)
        # A lane without a next token may run along with a larger batch, and needs a valid token id.
        torch.clamp(token_ids, min=0, out=self.token_ids[:num_lanes])
        self.slots[:num_lanes] += 1
        self.positions[:num_lanes] += 1
