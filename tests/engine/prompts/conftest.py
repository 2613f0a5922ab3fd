"""What the tests of prompts run on."""

import pytest

from dynts_batch.config import ModelConfig
from dynts_batch.kvcache.model_id import ModelId
from dynts_batch.kvcache.policies.thinkv.thoughts import Thoughts, save_thoughts


@pytest.fixture(scope="session")
def told_apart_model(tmp_path_factory: pytest.TempPathFactory) -> ModelConfig:
    """The embedded model, with layers that tell thoughts apart for the policy that asks."""
    path = tmp_path_factory.mktemp("thoughts") / "thoughts.safetensors"
    save_thoughts(path, Thoughts((3, 0), 0.25, 0.5), model=ModelId("embedded"), notes={})
    return ModelConfig(name="embedded", thoughts=str(path))
