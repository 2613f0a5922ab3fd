"""One candidate, or the full cache, on the questions it is asked:
a run directory of which some shards are done.

A shard is a question with all its samples, so that any question can be run, in any order,
and none twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from rich.console import Console

from dynts_batch.config import Config
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.shard_table import read_columns
from dynts_batch.report.tuning.losses import Row
from dynts_batch.report.tuning.spent import COLUMNS
from dynts_batch.runner.prepared_run import PreparedRun, prepare
from dynts_batch.runner.reason import drive

_NUM_THREADS = 8  # files on a bucket answer slowly, and all at once as fast as one


class Arm:
    """Runs questions, which are positions in the input, and reads their rows."""

    def __init__(self, name: str, config: Config, address: str | None) -> None:
        """`name`: what it is called; `config` is of its run;
        `address` of the Ray cluster, None for one of its own."""
        assert config.run.shard_rows == config.sampling.num_samples, config.run.shard_rows
        self.config, self._name = config, name
        self._address = address
        self._rows: dict[int, list[Row]] = {}
        self.run_dir = RunDir(str(config.run.dir))

    def prepare(self) -> PreparedRun:
        """Check all that can be checked before Ray starts. Raises:
        ConfigError, InputError, RunDirError."""
        return prepare(self.config, is_local=self._address is None)

    def run(self, questions: Sequence[int], console: Console) -> int | None:
        """Answer those of `questions` that have no rows yet;
        the exit status where the run was stopped before."""
        run = self.prepare()
        to_do = set(questions) - run.committed_shards
        if not to_do:
            return None
        console.print(
            f"{self._name}: {len(questions):,} questions, {len(to_do):,} to do",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
        run = dataclasses.replace(run, shards_to_do=tuple(sorted(to_do)))
        return drive(run, self._address, console)

    def rows(self, questions: Sequence[int]) -> list[list[Row]]:
        """The rows of `questions`, each of which read once, up to the first that has none yet."""
        if any(question not in self._rows for question in questions):
            done = self.run_dir.finished_shards()
            new = [q for q in questions if q in done and q not in self._rows]
            with ThreadPoolExecutor(_NUM_THREADS) as pool:
                self._rows |= dict(zip(new, pool.map(self._read, new), strict=True))
        found: list[list[Row]] = []
        for question in questions:
            if question not in self._rows:
                break
            found.append(self._rows[question])
        return found

    def _read(self, question: int) -> list[Row]:
        with self.run_dir.open_shard(question) as file:
            return read_columns(file, COLUMNS).to_pylist()
