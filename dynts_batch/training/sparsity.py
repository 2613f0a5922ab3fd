"""How sparse attention is at every decode step of a trace, layer by layer.

Sparsity tells thoughts apart. One pass over a finished trace gives what decoding it with the full
cache saw. Only the attention rows of the measured queries are computed, a chunk at a time. Knows
nothing about thresholds.
"""

from collections.abc import Sequence

import numpy as np
import torch

from dynts_batch.config import ModelConfig
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.shard_table import Unit
from dynts_batch.engine.attention.steps import attend_causal
from dynts_batch.engine.model.loader import LoadedModel, load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.kvcache.layer_states import LayerStates
from dynts_batch.kvcache.policies.thinkv.thoughts import sparsity
from dynts_batch.kvcache.probs import CHUNK_BYTES, attention_logits, visible_slots
from dynts_batch.training.traces import Trace, read_traces


class SparsityStep:
    """A forward pass over one trace. It stores nothing and measures queries at `positions` [N]."""

    def __init__(self, positions: torch.Tensor) -> None:
        self._positions = positions
        self.found: list[torch.Tensor] = []

    def attend(self, states: LayerStates) -> torch.Tensor:
        _, query, key, value, rule = states
        _, num_heads, length, _ = query.shape
        slot = torch.arange(length, device=query.device)[None, None]
        cache_len = slot.new_tensor([length])
        chunks = []
        for positions in self._positions.split(max(1, CHUNK_BYTES // (4 * num_heads * length))):
            logits = attention_logits(query[:, :, positions], key, rule.scale)
            visible = visible_slots(positions[None], slot, cache_len, rule.sliding_window)
            chunks.append(sparsity(logits.masked_fill(~visible.unsqueeze(2), -torch.inf))[0])
        self.found.append(torch.cat(chunks))
        return attend_causal(query, key, value, rule)


@torch.inference_mode()
def trace_sparsity(model: LoadedModel, trace: Trace, num_steps: int) -> np.ndarray:
    """Sparsity of attention in each layer, float32 [num_layers, steps].

    It is measured at `num_steps` decode steps, spread evenly over the trace, or at all if there are
    fewer.
    """
    token_ids = torch.tensor([trace.token_ids], device=model.device)
    start, end = len(trace.prompt_token_ids), token_ids.shape[1]
    count = min(num_steps, end - start)
    positions = start + torch.arange(count, device=model.device) * (end - start) // count
    step = SparsityStep(positions)
    model.decoder(input_ids=token_ids, use_cache=False, kv_step=step)
    return torch.stack(step.found).float().cpu().numpy()


class SparsityMeter:
    """A model, and the run whose traces it measures."""

    def __init__(self, model: ModelConfig, run_dir: str, num_steps: int) -> None:
        """Raises: ConfigError if the model cannot be loaded."""
        self._model = load_model(resolve_model(model))
        self._renderer = PromptRenderer(self._model.tokenizer, self._model.think_tags)
        self._run_dir, self._num_steps = RunDir(run_dir), num_steps

    def run_shard(self, shard: int, units: Sequence[Unit]) -> list[np.ndarray]:
        """`trace_sparsity` of the `units` of `shard` whose rows give a trace."""
        return [
            trace_sparsity(self._model, trace, self._num_steps)
            for trace in read_traces(self._run_dir, shard, units, self._renderer)
            if isinstance(trace, Trace)
        ]
