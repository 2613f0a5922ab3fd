"""Laws of late scores: each token's is the predictor's, in the slot where the token is,
whenever it is asked for."""

import pytest
import torch

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.kvcache.arena_shape import ArenaShape
from dynts_batch.kvcache.policies import make_policy
from dynts_batch.kvcache.predictor import ImportancePredictor, place_of
from dynts_batch.kvcache.recorders.importance import MAX_PENDING_STEPS, Importance
from dynts_batch.kvcache.recorders.recorder import LaneState, Tokens
from dynts_batch.records import Request

HIDDEN_SIZE = 8


@pytest.mark.parametrize("num_steps", [1, MAX_PENDING_STEPS - 1, 3 * MAX_PENDING_STEPS + 5])
def test_every_decoded_token_has_its_own_score_after_a_flush(num_steps: int) -> None:
    torch.manual_seed(0)
    predictor = ImportancePredictor(HIDDEN_SIZE, "state+place").requires_grad_(False)
    shape = ArenaShape(1, 1, 2, torch.float32, columns=(Importance.column,))
    arena = KVArena(shape, max_seqs=5, capacity=80, device=torch.device("cpu"))
    prompt_tokens = torch.tensor([2, 11, 7, 0, 0])
    next_slots = torch.tensor([3, 20, 7, 0, 0])  # of ragged lanes, two of them unused
    recorder = Importance(arena, LaneState(next_slots, prompt_tokens), [predictor])
    lanes, token_ids = torch.arange(3), torch.zeros(3, 1, dtype=torch.long)
    expected = arena.columns["importance"].clone()
    for _ in range(num_steps):
        hidden_states, slots = torch.randn(3, HIDDEN_SIZE), next_slots[:3].clone()
        positions = 3 * slots + 1  # an eviction has been here
        arena.write_column("positions", lanes, slots[:, None], positions[:, None])
        tokens = Tokens(
            *(lanes, token_ids, positions[:, None], slots[:, None], slots + 1),
            max_len=80,
            is_prompt=False,
        )
        places = place_of(positions, prompt_tokens[:3])
        expected[lanes, 0, 0, slots] = predictor(hidden_states, places)
        recorder.end(tokens, torch.full((3, 1, HIDDEN_SIZE), torch.nan))  # a graph's first run
        recorder.end(tokens, hidden_states[:, None])
        next_slots[:3] += 1
        recorder.step_done(3)
    recorder.settle()
    torch.testing.assert_close(arena.columns["importance"], expected)
    recorder.settle()
    torch.testing.assert_close(arena.columns["importance"], expected)


def test_the_engine_scores_every_token_by_its_own_place() -> None:
    """Prompts of many lengths, lanes that are refilled and move, and evictions,
    after which slots are no places."""
    torch.manual_seed(0)
    model = load_model(resolve_model(ModelConfig(device="cpu")))
    predictor = ImportancePredictor(model.config.hidden_size, "state+place").requires_grad_(False)
    predictor[0].weight[:, : model.config.hidden_size] = 0  # blind to the state
    predictor.place_scale.copy_(torch.tensor([20.0, 1.0, 10.0]))
    policy = make_policy(PolicyConfig("dynts", budget=60, window_size=8, keep_ratio=0.5))
    sampling, memory = SamplingConfig(max_new_tokens=90), MemoryConfig(max_seqs=3)
    engine = Engine(model, policy, sampling, memory, [predictor])
    for index in range(7):
        numbers = ", ".join(f"a = {n}" for n in range(1 + index % 4))
        engine.add_request(Request(str(index), prompt=f"Let {numbers}.", max_new_tokens=70 + index))
    num_checked = 0
    while engine.has_work():
        engine.step()
        engine._runner.settle()
        for lane, sequence in engine._scheduler.decoding().items():
            stored = engine.arena.positions[lane, 0, 0, : sequence.cache_len]
            places = place_of(stored, torch.tensor(len(sequence.prompt_token_ids)))
            states = torch.zeros(sequence.cache_len, model.config.hidden_size)
            found = engine.arena.columns["importance"][lane, 0, 0, : sequence.cache_len]
            torch.testing.assert_close(found, predictor(states, places))
            num_checked += sequence.num_evictions > 0
    assert num_checked > 50
