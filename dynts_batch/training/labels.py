"""Importance labels: the attention that each thinking token receives from the answer.

Source: arXiv 2601.18383.

The label of a token is its softmax attention in float32, averaged over answer tokens, query heads
and layers. Only the answer's rows of the attention are ever computed, a chunk of rows at a time.
They come from the queries and keys that the model itself uses. Memory grows linearly with the
trace. Knows nothing about files or predictors.
"""

import torch

from dynts_batch.engine.attention.steps import attend_causal
from dynts_batch.engine.model.loader import LoadedModel
from dynts_batch.kvcache.layer_states import LayerStates
from dynts_batch.kvcache.probs import attention_received
from dynts_batch.training.traces import Trace


class LabelStep:
    """A forward pass over one whole trace. It stores nothing and adds up the answer's attention."""

    def __init__(self, answer_start: int, seq_len: int, device: torch.device) -> None:
        self._answer_start = answer_start
        self._total = torch.zeros(seq_len, dtype=torch.float32, device=device)
        self._num_rows = 0

    def attend(self, states: LayerStates) -> torch.Tensor:
        _, query, key, value, rule = states
        # The diagonal needs no zeroing, because no answer token is a thinking token.
        position = torch.arange(query.shape[2], device=query.device)[None]
        answer, seq_len = slice(self._answer_start, None), position.new_tensor([query.shape[2]])
        received = attention_received(
            query[:, :, answer], key, position[:, answer], position[:, None], seq_len, rule
        )
        self._total += received.sum(dim=(0, 1))
        self._num_rows += query.shape[1] * (query.shape[2] - self._answer_start)
        return attend_causal(query, key, value, rule)

    def labels(self) -> torch.Tensor:
        """Mean attention received by every token of the trace, [seq_len]."""
        return self._total / self._num_rows


@torch.inference_mode()
def label_trace(model: LoadedModel, trace: Trace) -> tuple[torch.Tensor, torch.Tensor]:
    """Run the model over the trace once.

    Returns labels [T] float32 of its T thinking tokens, and their final-norm states
    [T, hidden_size].
    """
    start = len(trace.prompt_token_ids)
    end = start + len(trace.thinking_token_ids)
    token_ids = torch.tensor([trace.token_ids], device=model.device)
    step = LabelStep(end, token_ids.shape[1], model.device)
    hidden_states = model.decoder(
        input_ids=token_ids, use_cache=False, kv_step=step
    ).last_hidden_state
    return step.labels()[start:end], hidden_states[0, start:end]
