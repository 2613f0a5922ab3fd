"""Laws of late scores: each token's is the predictor's, in the slot where the token is, whenever it is asked for."""

import pytest
import torch

from dynts_batch.engine.importance import MAX_PENDING_STEPS, ImportanceRecorder
from dynts_batch.kvcache.arena import ArenaShape, KVArena
from dynts_batch.kvcache.predictor import ImportancePredictor

HIDDEN_SIZE = 8


@pytest.mark.parametrize("num_steps", [1, MAX_PENDING_STEPS - 1, 3 * MAX_PENDING_STEPS + 5])
def test_every_decoded_token_has_its_own_score_after_a_flush(num_steps: int) -> None:
    torch.manual_seed(0)
    predictor = ImportancePredictor(HIDDEN_SIZE).requires_grad_(False)
    shape = ArenaShape(1, 1, 2, torch.float32, columns=("importance",))
    arena = KVArena(shape, max_seqs=5, capacity=80, device=torch.device("cpu"))
    next_slots = torch.tensor([3, 20, 7, 0, 0])  # of ragged lanes, two of them unused
    recorder = ImportanceRecorder(predictor, arena, next_slots)
    expected = arena.columns["importance"].clone()
    for _ in range(num_steps):
        hidden_states, slots = torch.randn(3, HIDDEN_SIZE), next_slots[:3].clone()
        expected[torch.arange(3), 0, 0, slots] = predictor(hidden_states)
        recorder.defer(torch.full_like(hidden_states, torch.nan), slots)  # a graph's first run
        recorder.defer(hidden_states, slots)
        next_slots[:3] += 1
        recorder.count_step(3)
    recorder.flush()
    torch.testing.assert_close(arena.columns["importance"], expected)
    recorder.flush()
    torch.testing.assert_close(arena.columns["importance"], expected)
