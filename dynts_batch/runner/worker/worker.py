"""A worker: an engine on one device, kept busy with shards. The driver runs it as a Ray actor.

Two threads. The caller's steps the engine; the writer's grades rows and stores shards, because
those wait and a device must not. They share nothing: completions go over as a task, and what came
of them comes back as its result.

Knows nothing about Ray, nor about other workers.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pyarrow as pa

from dynts_batch.config import Config
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.schema import row_schema
from dynts_batch.errors import RowError
from dynts_batch.grading import Grader
from dynts_batch.grading.stopping import Stopping
from dynts_batch.records import Completion
from dynts_batch.runner.messages import Assignment, Finished, Item, Job, Orders, Report, WorkerInfo
from dynts_batch.runner.pricing import EnergyShares, HeldTime, price
from dynts_batch.runner.worker.devices import Devices
from dynts_batch.runner.worker.feed import Feed
from dynts_batch.runner.worker.same_model import check_same_model
from dynts_batch.runner.worker.shard_writer import (
    Measured,
    OpenShard,
    ShardWriter,
    Written,
)
from dynts_batch.runner.worker.stored_rows import Stored
from dynts_batch.runner.worker.timeline import Timeline
from dynts_batch.telemetry import WarningLog

logger = logging.getLogger(__name__)


class Worker:
    """Loads its engine when made, then `work`s as often as it is asked to, then `close`s."""

    def __init__(self, worker_id: str, job: Job, *, max_seqs: int | None = None) -> None:
        """`max_seqs` bounds the arena further than the configuration does.

        Raises:
            ConfigError: the settings do not fit this machine, or it holds another model.
            RunDirError: this machine cannot see the run directory.
        """
        began_s, self._held = time.time(), HeldTime()
        self._warnings = WarningLog()
        self._job, config = job, job.config
        self._config = config
        self._run_dir = RunDir(str(config.run.dir))
        of_run = self._run_dir.fingerprint("model")["model"]
        num_threads = max(1, int(config.workers.num_cpus or 1))
        gpu_share = min(1.0, job.num_gpus or 1.0)
        self._feed = Feed(
            _for_device(job), num_threads=num_threads, gpu_share=gpu_share, max_seqs=max_seqs
        )
        check_same_model(config.model.name, self._feed.identity, of_run)
        if job.num_gpus > 0 and not self._feed.gpu_uuids:
            logger.warning("it holds %g GPU and runs on a CPU: torch sees no GPU", job.num_gpus)
        # Measuring starts here: the energy that loading took belongs to no row.
        self._devices = Devices(self._feed.gpu_uuids, self._feed.num_devices)
        self._energy = EnergyShares()
        self._device_share = gpu_share
        self._place = self._devices.place(worker_id)
        self._timeline = Timeline(self._place)
        self._grader = Grader.from_config(config.grading)
        self._schema = row_schema(job.source_schema)
        self._writer = ShardWriter(self._run_dir, self._schema, self._grader)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="writer")
        # Which samples a question needs was decided by their first attempts.
        is_retry = job.first_budget is not None
        self._stopping = None if is_retry else Stopping.from_config(config.sampling)
        self._written: deque[Future[Written]] = deque()
        self._finished = Finished()
        self._written_at_s = time.monotonic()
        self._checkpoint_at_s = time.monotonic() + config.run.checkpoint_s
        self._completion_tokens = 0
        self._is_leaving = self._has_left = False
        self._last: Report | None = None
        self._timeline.begin(self._sample(), held_since_s=began_s)

    @property
    def info(self) -> WorkerInfo:
        return WorkerInfo(
            node=self._place["node"],
            device_name=self._place["device_name"],
            device_uuid=self._place["device_uuid"],
            num_devices=self._devices.num_devices,
            max_seqs=self._feed.max_seqs,
            arena_bytes=self._feed.arena_bytes,
        )

    def work(
        self, assignments: Sequence[Assignment], orders: Orders, *, device_share: float
    ) -> Report:
        """Take on `assignments` and work until a report is due: see `Orders`, or nothing is left.

        `device_share`: this worker's part of its GPUs, 1 / those on them.

        Raises:
            RunDirError: the run directory cannot be used.
            TimeoutError: it does not answer.
        """
        self._held_s()
        self._device_share = device_share
        self._feed.is_draining = orders.is_draining
        for assignment in assignments:
            self._open(assignment)
        report_at_s = time.monotonic() + orders.report_s
        most_busy_s = self._feed.busy_s + orders.max_busy_s
        while (now_s := time.monotonic()) < report_at_s and not self._is_leaving:
            if self._feed.has_work:
                self._step()
                self._checkpoint_if_due()
            elif self._written:
                wait([self._written[0]], timeout=report_at_s - now_s)
            self._take_written()
            is_low = orders.has_more and self._feed.num_wanted > 0
            if is_low or not self._is_busy() or self._feed.busy_s >= most_busy_s:
                break
        return self.close() if self._is_leaving else self._report()

    def leave(self) -> None:
        """End soon: the present call or the next one stores what is done and says so.
        Any thread."""
        self._is_leaving = True

    def close(self) -> Report:
        """Store all that is done, finished or not,
        and end the engine and the helpers of this worker. Once.

        Raises: RunDirError where the run directory cannot be written.
        """
        if self._has_left:
            assert self._last is not None, "it could not be closed before"
            return dataclasses.replace(self._last, finished=Finished(), warnings={})
        self._has_left = True
        self._checkpoint()
        self._thread.shutdown(wait=True)
        self._devices.close()
        self._grader.close()
        self._warnings.close()
        try:
            self._last = self._report()
        finally:
            self._feed.close()
        return self._last

    # ---- work in ------------------------------------------------------------------------------

    def _open(self, assignment: Assignment) -> None:
        stored = Stored.read(self._run_dir, assignment, self._schema, self._job)
        shard = OpenShard(assignment, stored, self._stopping)
        to_run = shard.to_run
        self._written.append(self._thread.submit(self._writer.open, shard))
        self._begin(to_run)

    def _begin(self, items: Sequence[Item]) -> None:
        self._finish([self._refuse(item, item.error) for item in items if item.error])
        for item in items:
            if item.error is None:
                self._feed.add(item.row.request(item.sample_index, trace=item.trace))

    def _refuse(self, item: Item, error: RowError) -> Completion:
        """The completion of a unit that the engine does not even get."""
        request = item.row.request(item.sample_index)
        return Completion.failed(request, error, seed=self._config.sampling.seed)

    def _step(self) -> None:
        self._finish(self._feed.step())

    # ---- rows out -----------------------------------------------------------------------------

    def _finish(self, completions: Sequence[Completion]) -> None:
        if not completions:
            return
        if self._devices.gpu_uuids:
            if not self._feed.has_work:
                self._devices.sample()  # the last rows get all that is not dealt out yet
            self._energy.update(self._devices.energy_j, device_share=self._device_share)
        peak_bytes = self._devices.peak_bytes
        results = [self._measure(completion, peak_bytes) for completion in completions]
        self._written.append(self._thread.submit(self._writer.add, results))

    def _measure(self, completion: Completion, peak_bytes: int | None) -> Measured:
        device_s = completion.device_s * self._device_share * self._devices.num_devices
        energy_j = None
        if self._devices.gpu_uuids:
            energy_j = self._energy.take(completion.device_s, busy_s=self._feed.busy_s)
        extras = {
            **self._place,
            "energy_j": energy_j,
            "cost_usd": price(device_s, energy_j, self._config.cost),
            "device_peak_bytes": peak_bytes,
        }
        return Measured(dataclasses.replace(completion, device_s=device_s), extras)

    def _checkpoint_if_due(self) -> None:
        if time.monotonic() >= self._checkpoint_at_s:
            self._checkpoint_at_s = time.monotonic() + self._config.run.checkpoint_s
            self._checkpoint()

    def _checkpoint(self) -> None:
        self._timeline.add(self._sample())
        self._written.append(self._thread.submit(self._store, self._timeline.take()))

    def _store(self, parts: Sequence[tuple[int, pa.Table]]) -> Written:
        self._writer.checkpoint()
        for part, samples in parts:
            self._run_dir.write_telemetry(self._place["worker_id"], part, samples)
        return Written()

    def _take_written(self) -> None:
        """Take over what the writer is through with, and begin what waited for it."""
        while self._written and self._written[0].done():
            written = self._written.popleft().result()
            self._written_at_s = time.monotonic()
            self._finished.add(written.finished)
            if not self._has_left:
                self._begin(written.to_run)

    # ---- reports ------------------------------------------------------------------------------

    def _is_busy(self) -> bool:
        return self._feed.has_work or bool(self._written)

    def _report(self) -> Report:
        self._take_written()
        is_idle = not self._is_busy()
        finished, self._finished = self._finished, Finished()
        self._check_writer()
        self._completion_tokens += finished.tally.completion_tokens
        sample = self._sample()
        if self._timeline.is_due:
            self._timeline.add(sample)
        return Report(
            finished=finished,
            num_wanted=self._feed.num_wanted,
            is_idle=is_idle,
            num_in_engine=self._feed.num_in_engine,
            num_running=self._feed.num_running,
            max_seqs=self._feed.max_seqs,
            spent_usd=self._spent_usd(),
            has_left=self._has_left,
            gauges=sample,
            warnings=self._warnings.take(),
        )

    def _check_writer(self) -> None:
        """A writer that waits for a dead file server for ever must not look like a busy one."""
        if not self._written:
            self._written_at_s = time.monotonic()
        elif time.monotonic() > self._written_at_s + self._config.run.stall_s:
            raise TimeoutError(
                f"{self._run_dir.path} has taken nothing for {self._config.run.stall_s:g} s"
                " (run.stall_s)"
            )

    def _spent_usd(self) -> float | None:
        energy_j = self._energy.owned_j if self._devices.gpu_uuids else None
        return price(self._held_s(), energy_j, self._config.cost)

    def _held_s(self) -> float:
        share = self._device_share * self._devices.num_devices
        return self._held.update(busy_s=self._feed.busy_s, device_share=share)

    def _sample(self) -> dict[str, Any]:
        return {
            **self._devices.figures(),
            "num_running": self._feed.num_running,
            "num_waiting": self._feed.num_waiting,
            "stored_tokens": self._feed.stored_tokens,
            "arena_bytes": self._feed.arena_bytes,
            "max_seqs": self._feed.max_seqs,
            "busy_s": self._feed.busy_s,
            "cost_usd": self._spent_usd(),
            "num_steps": self._feed.num_steps,
            "completion_tokens": self._completion_tokens,
            "allocator_peak_bytes": self._feed.allocator_peak_bytes,
        }


def _for_device(job: Job) -> Config:
    """Without a GPU of its own a worker must not look for one: Ray hides none from it then."""
    if job.num_gpus > 0:
        return job.config
    return dataclasses.replace(
        job.config, model=dataclasses.replace(job.config.model, device="cpu")
    )
