"""From a configuration to an engine, real or fake: the one place that knows there are two.

`check_engine` refuses whatever can be refused without loading weights or taking a GPU, so a run can
call it first; `load_engine` does the loading. torch is imported only where a model needs it, so that
a fake worker starts at once.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from typing import Any, Protocol

from dynts_batch.config import Config
from dynts_batch.records import Completion, Request
from dynts_batch.testing.fake_engine import FakeEngine, FakeSettings, is_fake


class AnyArena(Protocol):
    """What a run needs to know of the memory that an engine allocated."""

    @property
    def num_bytes(self) -> int: ...


class AnyEngine(Protocol):
    """What a run needs of an engine; Engine and FakeEngine have it."""

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
    def has_work(self) -> bool: ...
    def add_request(self, request: Request) -> None: ...
    def step(self) -> list[Completion]: ...


def check_engine(config: Config, *, on_gpu: bool) -> dict[str, Any]:
    """Check policy, model and memory; returns what identifies the model, as JSON data.

    `on_gpu` says where the workers will be, as far as is known: dtype "auto" depends on it.

    Raises: ConfigError.
    """
    from dynts_batch.kvcache.policies import make_policy

    policy = make_policy(config.policy)
    if is_fake(config.model.name):
        FakeSettings.parse(config.model.name)
        return {"name": "fake"}

    import torch

    from dynts_batch.engine.model import loader
    from dynts_batch.engine.model.files import pinned
    from dynts_batch.engine.model.identity import model_identity

    model = pinned(config.model)
    model_config = loader.inspect_model(model)
    dtype = loader.pick_dtype(model, model_config, torch.device("cuda" if on_gpu else "cpu"))
    thoughts = loader.load_thought_types(model, model_config, policy)
    shape = loader.arena_shape(model_config, policy, dtype, thoughts)
    capacity = policy.capacity(config.memory.max_prompt_tokens, config.sampling.max_new_tokens)
    loader.plan_max_seqs(shape, capacity, config.memory, free_bytes=None)
    return model_identity(
        model,
        model_config,
        dtype,
        needs_predictor="importance" in policy.requires,
        needs_thoughts="thought" in policy.requires,
    )


def renew_identity(
    config: Config, stored: Mapping[str, Any], today: Mapping[str, Any]
) -> dict[str, Any]:
    """What `check_engine` returned in an older version, in the words of what it returns `today`, as far as it is the same.

    Raises: ConfigError.
    """
    if is_fake(config.model.name) or stored == today:
        return dict(stored)

    from dynts_batch.engine.model.identity import in_todays_words
    from dynts_batch.engine.model.loader import inspect_model

    return in_todays_words(stored, today, config.model, inspect_model(config.model))


def load_engine(config: Config, *, num_threads: int, gpu_share: float = 1.0) -> AnyEngine:
    """Load the model and allocate the arena; `num_threads` is for torch's operations on the CPU. Of a GPU's memory,
    this process gets no more than `gpu_share`.

    Raises: ConfigError where the settings are wrong or the arena cannot hold one sequence.
    """
    if is_fake(config.model.name):
        settings = FakeSettings.parse(config.model.name)
        return FakeEngine(settings, config.policy, config.sampling, config.memory)

    import torch

    from dynts_batch.engine.engine import Engine

    torch.set_num_threads(num_threads)
    if gpu_share < 1 and torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(gpu_share)  # who takes more runs out, not others
    return Engine.load(
        config.model, config.policy, config.sampling, config.memory, gpu_share=gpu_share
    )


def gpu_uuid(engine: AnyEngine) -> str | None:
    """UUID of the GPU that holds the engine's arena; None on a CPU."""
    if isinstance(engine, FakeEngine) or (device := _device(engine)).type == "cpu":
        return None
    import torch

    return f"GPU-{torch.cuda.get_device_properties(device).uuid}"


def allocator_peak_bytes(engine: AnyEngine) -> int | None:
    """Most GPU memory that torch had given to this process's tensors; None on a CPU."""
    if isinstance(engine, FakeEngine) or (device := _device(engine)).type == "cpu":
        return None
    import torch

    return torch.cuda.max_memory_allocated(device)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out, on the device or the host."""
    # torch has a class for its allocator on a GPU and bare RuntimeErrors for the rest.
    names = {cls.__name__ for cls in type(error).__mro__}
    text = str(error)
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or any(
        words in text for words in ("can't allocate memory", "out of memory", "ALLOC_FAILED")
    )


def free_memory() -> None:
    """Give back what an engine that was just dropped has held."""
    gc.collect()
    if "torch" in sys.modules:
        import torch

        torch.cuda.empty_cache()


def _device(engine: AnyEngine) -> Any:
    from dynts_batch.engine.engine import Engine

    assert isinstance(engine, Engine), type(engine)
    return engine.arena.positions.device
