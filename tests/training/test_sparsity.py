"""What calibration measures on a finished trace is what the policy sees while it decodes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.kvcache.policies import make_policy
from dynts_batch.kvcache.policies.thinkv.thoughts import Thoughts
from dynts_batch.records import Request
from dynts_batch.training.sparsity import trace_sparsity
from dynts_batch.training.traces import Trace


class Seen(Thoughts):
    """Writes down what is to be classified."""

    values: list[float] = []  # noqa: RUF012 (shared on purpose: the dataclass is frozen)

    def classify(self, sparsity: torch.Tensor) -> torch.Tensor:
        self.values.extend(sparsity.tolist())
        return super().classify(sparsity)


@pytest.mark.parametrize("architecture", ["qwen2", "gpt_oss"])
def test_sparsity_of_a_trace_is_what_its_decoding_saw(
    architecture: str, tiny_model_dirs: dict[str, Path]
) -> None:
    """With groups of query heads, sliding-window layers and sinks;
    a segment of one token asks at every step."""
    model = load_model(resolve_model(ModelConfig(name=str(tiny_model_dirs[architecture]))))
    policy = make_policy(
        PolicyConfig("thinkv", budget=200, window_size=0, options={"segment_size": 1})
    )
    thoughts = Seen(layers=(0, 1, 2), low=0.3, high=0.5)
    thoughts.values.clear()
    sampling, memory = SamplingConfig(temperature=0.8, max_new_tokens=60), MemoryConfig(max_seqs=1)
    engine = Engine(model, policy, sampling, memory, [thoughts])
    prompt = list(range(10, 22))
    (completion,) = engine.generate([Request("a", prompt_token_ids=prompt)])
    # The last token drawn is never processed, and the step that draws it asks nothing any more.
    decoded = list(completion.completion_token_ids)[:-1]
    found = trace_sparsity(model, Trace("a", 0, prompt, decoded, []), num_steps=1000)
    assert found.shape == (3, len(decoded))
    assert thoughts.values == pytest.approx(found.mean(axis=0)[: len(thoughts.values)].tolist())
    assert len(thoughts.values) == len(decoded) - 1 > 20
    assert found.std() > 0.05
    some = trace_sparsity(model, Trace("a", 0, prompt, decoded, []), num_steps=7)
    np.testing.assert_array_equal(some, found[:, np.arange(7) * len(decoded) // 7])
