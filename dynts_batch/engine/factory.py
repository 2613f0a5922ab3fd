"""The door to an engine: the one place that knows which engines exist.

`check_engine` refuses all that can be refused without loading weights or taking a GPU, so a run
calls it first. `load_engine` loads. torch is imported only if a model needs it, so a fake worker
starts at once. Engines describe themselves: callers do not ask which engine they have.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from dynts_batch.config import Config, ModelConfig
from dynts_batch.errors import ConfigError
from dynts_batch.records import Completion, Request
from dynts_batch.testing.fake_engine import FakeEngine
from dynts_batch.testing.fake_model import FakeModel, is_fake


class AnyModel(Protocol):
    """What a run needs to know of a model that is not loaded. ResolvedModel and FakeModel
    have it."""

    @property
    def settings(self) -> ModelConfig:
        """The settings with which every worker loads it at any time: a branch is pinned to its
        commit."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What identifies the model, as JSON data."""

    def in_todays_words(self, stored: Mapping[str, Any]) -> dict[str, Any]:
        """A stored identity of an older version, in today's form as far as it means the same."""


class AnyArena(Protocol):
    """What a run needs to know of an engine's arena."""

    @property
    def num_bytes(self) -> int: ...


class AnyEngine(Protocol):
    """What a run needs of an engine. Engine and FakeEngine have it."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The identity of the loaded model, see AnyModel."""

    @property
    def arena(self) -> AnyArena: ...
    @property
    def busy_s(self) -> float: ...
    @property
    def max_seqs(self) -> int: ...
    @property
    def num_waiting(self) -> int: ...
    @property
    def num_running(self) -> int: ...
    @property
    def stored_tokens(self) -> int: ...
    @property
    def num_devices(self) -> int:
        """GPUs that the model is spread over. On a CPU, processes."""

    @property
    def gpu_uuids(self) -> tuple[str, ...]:
        """The GPUs that it runs on; empty on a CPU."""

    @property
    def allocator_peak_bytes(self) -> int | None:
        """Most GPU memory that its process has allocated; None on a CPU."""

    def has_work(self) -> bool: ...
    def add_request(self, request: Request) -> None: ...
    def step(self) -> list[Completion]: ...
    def close(self) -> None:
        """Free its memory. It must not be used afterwards."""


def check_engine(config: Config, *, on_gpu: bool) -> AnyModel:
    """Check policy, model and memory.

    `on_gpu`: whether the workers will have GPUs, as far as known. dtype "auto" depends on it.

    Raises: ConfigError.
    """
    from dynts_batch.kvcache.policies import make_policy

    policy = make_policy(config.policy)
    of_retries = config.policy.of_retries and make_policy(config.policy.of_retries)
    if config.engine.kind == "arena":
        _check_one_gpu(config)
    if is_fake(config.model.name):
        return FakeModel.check(config.model)

    from dynts_batch.engine.model.chat.input_chats import check_chats

    if config.engine.kind == "vllm":
        from dynts_batch.engine.vllm.model import resolve_vllm_model

        found = resolve_vllm_model(config)
        check_chats(config.input, config.model.name, found.chat)
        return found

    import torch

    from dynts_batch.engine.model.memory import check_memory
    from dynts_batch.engine.model.resolved import check_skeleton, resolve_model

    device = torch.device("cuda" if on_gpu else "cpu")
    model = resolve_model(config.model, policy.companions, device)
    check_memory(model, of_retries or policy, config.memory, config.sampling.max_new_tokens)
    check_chats(config.input, config.model.name, model.chat)
    check_skeleton(model, config.sampling.max_new_tokens)
    return model


def load_engine(config: Config, *, num_threads: int, gpu_share: float = 1.0) -> AnyEngine:
    """Load the model and allocate the arena.

    `num_threads` is for torch's operations on the CPU. The process gets at most `gpu_share` of a
    GPU's memory.

    Raises: ConfigError if the settings are wrong or the arena cannot hold one sequence.
    """
    if is_fake(config.model.name):
        return FakeEngine.load(config)

    if config.engine.kind == "vllm":
        from dynts_batch.engine.vllm.engine import VllmEngine

        return VllmEngine.load(config, gpu_share=gpu_share)

    import torch

    from dynts_batch.engine.engine import Engine

    torch.set_num_threads(num_threads)
    if gpu_share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(
            gpu_share
        )  # whoever takes more fails, not its neighbours
    return Engine.load(
        config.model, config.policy, config.sampling, config.memory, gpu_share=gpu_share
    )


def _check_one_gpu(config: Config) -> None:
    num_gpus = config.workers.num_gpus
    if num_gpus is not None and num_gpus > 1:
        raise ConfigError(
            "workers.num_gpus must be at most 1 when engine.kind is arena, whose model is on one"
            f" GPU, got {num_gpus:g}; engine.kind=vllm spreads a model over several"
        )
