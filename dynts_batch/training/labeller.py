"""Labels the traces of a run, a shard at a time: model and traces in, Parquet out.

Knows nothing about who asks for which shard, nor about fitting.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from dynts_batch.config import ModelConfig
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.shard_table import Unit
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.errors import ConfigError
from dynts_batch.training.label_dir import LabelDir, LabelledTrace
from dynts_batch.training.labels import label_trace
from dynts_batch.training.traces import Answer, Dropped, Trace, read_traces


@dataclass(frozen=True)
class LabelSettings:
    """Which traces are labelled, and what is stored of them."""

    traces_per_question: int = 1
    hidden_tokens: int = 2048
    """Most thinking tokens of a trace whose hidden states are stored, drawn at random. 0: labels
    only."""
    seed: int = 0
    """The seed of that draw."""
    answer: Answer = "tags"
    """Where a trace's answer begins. `tags`: with the end of thinking. `stated`: with the sentence
    in which the graded answer stands last, for models that think without tags."""

    def __post_init__(self) -> None:
        if self.traces_per_question < 1 or self.hidden_tokens < 0:
            raise ConfigError(
                "traces_per_question must be at least 1 and hidden_tokens at least 0, got"
                f" {self.traces_per_question} and {self.hidden_tokens}"
            )


class Labeller:
    """A model, and the run whose traces it labels."""

    def __init__(
        self, model: ModelConfig, run_dir: str, label_dir: str, settings: LabelSettings
    ) -> None:
        """Raises: ConfigError if the model cannot be loaded."""
        self._model = load_model(resolve_model(model))
        self._renderer = PromptRenderer(self._model.tokenizer, self._model.think_tags)
        self._run_dir, self._label_dir = RunDir(run_dir), LabelDir(label_dir)
        self._settings = settings

    def run_shard(self, shard: int, units: Sequence[Unit]) -> int:
        """Label `units` of `shard` and store them. Returns how many gave a trace."""
        traces, dropped = [], Counter[str]()
        for found in read_traces(
            self._run_dir, shard, units, self._renderer, self._settings.answer
        ):
            if isinstance(found, Dropped):
                dropped[found.reason] += 1
            else:
                traces.append(self._label(found))
        self._label_dir.commit_shard(
            shard, traces, dropped, self._model.config.get_text_config().hidden_size
        )
        return len(traces)

    def _label(self, trace: Trace) -> LabelledTrace:
        labels, hidden_states = label_trace(self._model, trace)
        positions = self._sample(trace)
        index = torch.from_numpy(positions).to(hidden_states.device)
        return LabelledTrace(
            request_id=trace.request_id,
            sample_index=trace.sample_index,
            prompt_tokens=len(trace.prompt_token_ids),
            token_ids=trace.thinking_token_ids,
            labels=labels.cpu().numpy(),
            hidden_positions=positions.astype(np.int32),
            # On the CPU, so that the device keeps nothing of a trace.
            hidden_states=hidden_states[index].to(device="cpu", dtype=torch.float16).numpy(),
        )

    def _sample(self, trace: Trace) -> np.ndarray:
        """The thinking tokens whose states are stored. They depend on seed and trace alone."""
        num_tokens, num_stored = len(trace.thinking_token_ids), self._settings.hidden_tokens
        if num_tokens <= num_stored:
            return np.arange(num_tokens)
        name = f"{self._settings.seed}\0{trace.request_id}\0{trace.sample_index}"
        rng = np.random.default_rng(list(name.encode()))
        return np.sort(rng.choice(num_tokens, num_stored, replace=False))
