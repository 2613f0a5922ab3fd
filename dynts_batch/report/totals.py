"""What a run adds up to: figures from sums over its rows and samples.

Reads a batch at a time and keeps only sums, so the end of a run of any size costs no memory.
Figures that need every row at once (questions, histograms) are in measures.py.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

from dynts_batch.config import Config
from dynts_batch.data.run_dir import RunDir
from dynts_batch.grading.stopping import Stopping
from dynts_batch.records import NOT_RUN
from dynts_batch.report.crossover import Crossover, find_crossover
from dynts_batch.report.device_time import DeviceTime, measure_device_time
from dynts_batch.report.endings.sums import Endings
from dynts_batch.report.price import Price

#: Of both attempts of a row that ran again. They count even if the second one failed.
_PAID = ("device_s", "energy_j", "cost_usd")
#: Of which an unknown part makes the sum unknown.
_SUMMED = (
    *("prompt_tokens", "completion_tokens", "peak_cache_len", "peak_kv_bytes", "full_kv_bytes"),
    *("num_preemptions", "recomputed_tokens"),
    *_PAID,
)
COLUMNS = (
    *("sample_index", "finish_reason", "error_type", "correct", "text_matters"),
    *("forced_end", "first_attempt"),
    *_SUMMED,
)


@dataclass
class Totals:
    """Sums over rows. Error and skipped rows count only as such, but for what their first attempt
    took. What is wholly unknown is None."""

    config: Config
    device: DeviceTime | None = None
    """None without telemetry."""
    finish_reasons: Counter[str] = field(default_factory=Counter)
    error_types: Counter[str] = field(default_factory=Counter)
    num_judged: int = 0
    num_counted: int = 0
    """Judged rows of the samples that every question has.

    These are all, unless sampling.stop_when left some out.
    """
    num_counted_right: int = 0
    num_text_known: int = 0
    """Rows with a known verdict under the other grading.text."""
    num_text_matters: int = 0
    """Rows whose verdict would differ."""
    endings: Endings = field(default_factory=Endings)
    _num_right: int = 0
    _sums: dict[str, float | None] = field(default_factory=lambda: dict.fromkeys(_SUMMED, 0))
    _lost_tokens: int = 0
    """Tokens of first attempts whose second one failed."""
    _token_steps: float = 0.0
    """Tokens that a full cache would hold, summed over all steps of all sequences."""

    @classmethod
    def of(
        cls, config: Config, rows: Iterable[pa.RecordBatch], telemetry: Iterable[pa.Table]
    ) -> Totals:
        """`rows` have at least `COLUMNS`."""
        totals = cls(config, measure_device_time(telemetry))
        for batch in rows:
            totals.add(batch)
        return totals

    def add(self, rows: pa.RecordBatch) -> None:
        self.finish_reasons.update(rows["finish_reason"].to_pylist())
        self.error_types.update(rows["error_type"].drop_null().to_pylist())
        self.num_judged += rows.num_rows - rows["correct"].null_count
        self._num_right += pc.sum(rows["correct"]).as_py() or 0
        counted = rows["correct"]
        if self.num_certain is not None:
            counted = counted.filter(pc.less(rows["sample_index"], self.num_certain))
        self.num_counted += len(counted) - counted.null_count
        self.num_counted_right += pc.sum(counted).as_py() or 0
        self.num_text_known += rows.num_rows - rows["text_matters"].null_count
        self.num_text_matters += pc.sum(rows["text_matters"]).as_py() or 0
        is_run = pc.invert(pc.is_in(rows["finish_reason"], pa.array(NOT_RUN)))
        has_first = rows["first_attempt"].is_valid()
        run, paid = rows.filter(is_run), rows.filter(pc.or_(is_run, has_first))
        failed_again = rows.filter(pc.and_not(has_first, is_run))["first_attempt"]
        self._lost_tokens += pc.sum(pc.struct_field(failed_again, "completion_tokens")).as_py() or 0
        self.endings.add(run)
        for name, total in self._sums.items():
            if total is not None:
                values = (paid if name in _PAID else run)[name]
                is_known = not values.null_count
                self._sums[name] = total + (pc.sum(values).as_py() or 0) if is_known else None
        # A sequence lives as many steps as it generates tokens, and grows by one token with each.
        prompts, completions = (
            run[name].cast(pa.float64()) for name in ("prompt_tokens", "completion_tokens")
        )
        steps = pc.multiply(completions, pc.add(prompts, pc.divide(completions, 2.0)))
        self._token_steps += pc.sum(steps).as_py() or 0.0

    @property
    def num_rows(self) -> int:
        return self.finish_reasons.total()

    @property
    def num_errors(self) -> int:
        return self.finish_reasons["error"]

    @property
    def num_answers(self) -> int:
        """Rows that were run. Error rows and skipped ones have no answer and count in no mean."""
        return self.num_rows - self.num_errors - self.num_skipped

    @property
    def num_skipped(self) -> int:
        """Samples that their question did not need (sampling.stop_when)."""
        return self.finish_reasons["skipped"]

    @property
    def num_correct(self) -> int | None:
        return self._num_right if self.num_judged else None

    @cached_property
    def num_certain(self) -> int | None:
        """Samples that every question has, whatever they say; None: all."""
        stopping = Stopping.from_config(self.config.sampling)
        return None if stopping is None else stopping.num_certain

    @property
    def right_share(self) -> float | None:
        """Of the counted rows: others are run the more often, the harder their question."""
        return self.num_counted_right / self.num_counted if self.num_counted else None

    @property
    def truncated_share(self) -> float | None:
        """Answers that ended at the token limit."""
        return self._mean(self.finish_reasons["length"])

    @property
    def completion_tokens(self) -> int:
        """Generated tokens, those of first attempts included."""
        first_tokens = self.endings.retries.first_tokens + self._lost_tokens
        return int(self._sums["completion_tokens"] or 0) + first_tokens

    @property
    def tokens_per_problem(self) -> float | None:
        """Generated tokens, mean over answers."""
        return self._mean(self.completion_tokens)

    @property
    def mean_peak_tokens(self) -> float | None:
        """Most tokens that a sequence stored at once, mean over answers."""
        return self._mean(self._sums["peak_cache_len"])

    @property
    def mean_full_tokens(self) -> float | None:
        """Tokens that the full cache would store at the end of a sequence. Nothing stores its last
        token."""
        prompts, completions = self._sums["prompt_tokens"], self._sums["completion_tokens"]
        if prompts is None or completions is None:
            return None
        return self._mean(prompts + completions - self.num_answers)

    @property
    def mean_peak_bytes(self) -> float | None:
        """Most KV bytes that a sequence held at once, mean over answers."""
        return self._mean(self._sums["peak_kv_bytes"])

    @property
    def mean_full_bytes(self) -> float | None:
        """Bytes that the full cache would hold at the end of a sequence, mean over answers."""
        return self._mean(self._sums["full_kv_bytes"])

    @property
    def stored_share(self) -> float | None:
        """Stored bytes over the full cache's."""
        if not self.mean_full_bytes or self.mean_peak_bytes is None:
            return None
        return self.mean_peak_bytes / self.mean_full_bytes

    @property
    def num_preemptions(self) -> int | None:
        """How often a sequence lost its cache to others."""
        return self._count("num_preemptions")

    @property
    def recomputed_tokens(self) -> int | None:
        """Tokens that the model processed once more because of that."""
        return self._count("recomputed_tokens")

    @property
    def dollars(self) -> Price:
        return self._price("cost_usd")

    @property
    def joules(self) -> Price:
        return self._price("energy_j")

    @property
    def device_s(self) -> float:
        """Device seconds of the rows."""
        return self._sums["device_s"] or 0.0

    @property
    def tokens_per_s(self) -> float | None:
        """Generated tokens of finished rows, per second with at least one worker at work."""
        if self.device is None or self.device.wall_s <= 0:
            return None
        return self.completion_tokens / self.device.wall_s

    @property
    def tokens_per_device_s(self) -> float | None:
        """Generated tokens per second of a working device."""
        return self.completion_tokens / self.device_s if self.device_s > 0 else None

    @property
    def held_usd(self) -> float | None:
        """Cost of the devices from loading to last sample, idle or not. None without a price."""
        return None if self.device is None else self.device.held_usd

    @cached_property
    def crossover(self) -> Crossover | None:
        """Valid once all rows are added."""
        tokens = self._sums["completion_tokens"]
        if not self.mean_full_tokens or not self.mean_full_bytes or not tokens:
            return None
        return find_crossover(
            self.device,
            bytes_per_token=self.mean_full_bytes / self.mean_full_tokens,
            mean_tokens=self._token_steps / tokens,
            max_tokens=self.config.memory.max_prompt_tokens + self.config.sampling.max_new_tokens,
        )

    def _count(self, column: str) -> int | None:
        total = self._sums[column]
        return None if total is None else int(total)

    def _mean(self, total: float | None) -> float | None:
        return total / self.num_answers if total is not None and self.num_answers else None

    def _price(self, column: str) -> Price:
        return Price(
            total=self._sums[column] if self.num_answers else None,
            num_answers=self.num_answers,
            num_correct=self.num_correct,
            completion_tokens=self.completion_tokens,
        )


def add_up(run_dir: RunDir) -> Totals:
    """The committed rows of `run_dir`, and its telemetry as far as it can be read.

    Raises: RunDirError if the rows cannot be read.
    """
    telemetry = run_dir.read_telemetry(skip_damaged=True)
    return Totals.of(run_dir.config(), run_dir.read_rows(COLUMNS), telemetry)


def beyond_text(run_dir: RunDir) -> str | None:
    """How many committed rows went beyond the positions that their model was trained for.

    None if none did, or if the model's configuration does not say for how many it was trained.

    Raises: RunDirError if the rows cannot be read.
    """
    model = run_dir.fingerprint().get("model")
    trained = model.get("trained_positions") if isinstance(model, dict) else None
    if trained is None:
        return None
    num_rows = num_beyond = 0
    for rows in run_dir.read_rows(("prompt_tokens", "completion_tokens")):
        lengths = pc.add(rows["prompt_tokens"], rows["completion_tokens"])
        num_rows += rows.num_rows
        num_beyond += pc.sum(pc.greater(lengths, trained)).as_py() or 0
    if not num_beyond:
        return None
    return (
        f"{num_beyond:,} of {num_rows:,} rows went beyond the {trained:,} positions that the model"
        " was trained for (max_position_embeddings): what it wrote there may be worse"
    )
