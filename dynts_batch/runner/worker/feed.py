"""An engine and the requests of its worker: kept full, and kept alive when memory runs out.

The engine holds a batch and a half; what comes after waits here, so that admission can stop at
once. If a step runs out of memory, the engine is made again with a smaller arena. The requests that
it held begin anew, and their tokens do not depend on it. Knows nothing about shards.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Mapping
from typing import Any

from dynts_batch.config import Config
from dynts_batch.engine.factory import AnyEngine, load_engine
from dynts_batch.engine.out_of_memory import is_out_of_memory
from dynts_batch.errors import ConfigError
from dynts_batch.records import Completion, Request

logger = logging.getLogger(__name__)

_SHRINK = 0.75


class Feed:
    """Counts are requests; times and sums include the engines that were made again."""

    def __init__(
        self,
        config: Config,
        *,
        num_threads: int,
        gpu_share: float = 1.0,
        max_seqs: int | None = None,
    ) -> None:
        """`max_seqs` bounds the arena further than the configuration does;
        see load_engine for the others.

        Raises: ConfigError where the settings do not fit this machine.
        """
        self._config = _bounded(config, max_seqs)
        self._num_threads, self._gpu_share = num_threads, gpu_share
        self._engine = self._load()
        self._queue: deque[Request] = deque()
        self._in_engine: dict[tuple[str, int], Request] = {}
        self._busy_before_s = 0.0
        self.is_draining = False
        """Nothing more is admitted to the engine."""
        self.num_steps = 0

    @property
    def identity(self) -> Mapping[str, Any]:
        """Of the model that is loaded."""
        return self._engine.identity

    @property
    def max_seqs(self) -> int:
        return self._engine.max_seqs

    @property
    def num_running(self) -> int:
        return self._engine.num_running

    @property
    def num_waiting(self) -> int:
        return len(self._queue) + self._engine.num_waiting

    @property
    def num_in_engine(self) -> int:
        return len(self._in_engine)

    @property
    def num_wanted(self) -> int:
        """Requests to ask for: none while half a batch waits,
        else enough for a batch and a half."""
        if self.is_draining or self.num_waiting * 2 >= self.max_seqs:
            return 0
        return self._most_in_engine - self.num_running - self.num_waiting

    @property
    def has_work(self) -> bool:
        return self._engine.has_work() or bool(self._queue and not self.is_draining)

    @property
    def busy_s(self) -> float:
        return self._busy_before_s + self._engine.busy_s

    @property
    def stored_tokens(self) -> int:
        return self._engine.stored_tokens

    @property
    def arena_bytes(self) -> int:
        return self._engine.arena.num_bytes

    @property
    def gpu_uuids(self) -> tuple[str, ...]:
        return self._engine.gpu_uuids

    @property
    def num_devices(self) -> int:
        return self._engine.num_devices

    @property
    def allocator_peak_bytes(self) -> int | None:
        return self._engine.allocator_peak_bytes

    def close(self) -> None:
        """End the engine. Nothing may be asked of the feed afterwards."""
        self._engine.close()

    def add(self, request: Request) -> None:
        """Take charge of `request`: a later `step` returns its completion."""
        self._queue.append(request)

    def step(self) -> list[Completion]:
        """One step of the engine; the completions that ended.

        Raises: what the engine raises, running out of memory with a single sequence included.
        """
        refused = self._admit()
        completions = self._step_engine()
        for completion in completions:
            del self._in_engine[completion.request_id, completion.sample_index]
        return refused + completions

    @property
    def _most_in_engine(self) -> int:
        return self.max_seqs + -(-self.max_seqs // 2)

    def _admit(self) -> list[Completion]:
        """Fill the engine up; the completions of requests that it does not even take."""
        refused = []
        while self._queue and not self.is_draining and len(self._in_engine) < self._most_in_engine:
            request = self._queue.popleft()
            try:
                self._engine.add_request(request)
            except Exception as error:  # noqa: BLE001  the per-request wall: one row, not the run
                seed = self._config.sampling.seed
                logger.warning("refused: %s", error, extra={"request_id": request.request_id})
                refused.append(Completion.failed(request, error, seed=seed))
            else:
                self._in_engine[request.request_id, request.sample_index] = request
        return refused

    def _step_engine(self) -> list[Completion]:
        self.num_steps += 1
        try:
            return self._engine.step()
        except (MemoryError, RuntimeError) as error:
            if self.max_seqs == 1 or not is_out_of_memory(error):
                raise
            num_fitting = min(self.max_seqs, max(self.num_running, 2))
            logger.warning("out of memory with %d sequences: %s", num_fitting, error)
        # Not in the handler: the error's traceback holds on to the memory.
        self._shrink(max(1, int(num_fitting * _SHRINK)))
        return []

    def _shrink(self, max_seqs: int) -> None:
        self._busy_before_s += self._engine.busy_s
        self._config = _bounded(self._config, max_seqs)
        self._queue.extendleft(reversed(self._in_engine.values()))
        self._in_engine.clear()
        self._engine.close()
        self._engine = self._load()

    def _load(self) -> AnyEngine:
        try:
            return load_engine(
                self._config, num_threads=self._num_threads, gpu_share=self._gpu_share
            )
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
        raise ConfigError(
            "memory.kv_gib and memory.max_seqs must leave room for the model and the arena on every"
            f" worker's device, got {self._config.memory.kv_gib} and"
            f" {self._config.memory.max_seqs}: {reason}"
        )


def _bounded(config: Config, max_seqs: int | None) -> Config:
    if max_seqs is None:
        return config
    most = min(max_seqs, config.memory.max_seqs or max_seqs)
    return dataclasses.replace(config, memory=dataclasses.replace(config.memory, max_seqs=most))
