"""What sampling.stop_when saved, beside a run of all samples, as the run's own rows tell it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dynts_batch.report.run_rows import RunRows


@dataclass(frozen=True)
class Savings:
    """Samples, generated tokens and dollars. `plain_*`: what running all samples would have taken.

    That is an estimate, unless all were run: each question's samples count as the mean of those
    that every question has. It is unbiased, because nothing that a sample says decides whether
    those are run.
    """

    num_run: int
    num_samples: int
    tokens: float
    plain_tokens: float
    usd: float | None
    plain_usd: float | None

    @classmethod
    def of(cls, run: RunRows, questions: np.ndarray, num_certain: int) -> Savings:
        """`questions` [rows] says which question each row belongs to, from 0."""
        is_run = run.is_run()
        is_possible = is_run | run.is_equal("finish_reason", "skipped")
        is_certain = is_run & (run.numbers("sample_index") < num_certain)
        possible, certain = (np.bincount(questions, of) for of in (is_possible, is_certain))

        def plain(amounts: np.ndarray) -> float:
            if num_run == num_samples:
                return float(amounts[is_run].sum())
            sums = np.bincount(questions, np.where(is_certain, amounts, 0.0))
            known = certain > 0
            return float(np.sum(possible[known] * sums[known] / certain[known]))

        num_run, num_samples = int(is_run.sum()), int(is_possible.sum())
        tokens, usd = run.generated_tokens(), run.numbers("cost_usd")
        is_priced = not np.isnan(usd[is_run]).any()
        return cls(
            num_run=num_run,
            num_samples=num_samples,
            tokens=float(tokens[is_run].sum()),
            plain_tokens=plain(tokens),
            usd=float(usd[is_run].sum()) if is_priced else None,
            plain_usd=plain(usd) if is_priced else None,
        )

    @property
    def run_share(self) -> float | None:
        """Of all samples, those that were run."""
        return self.num_run / self.num_samples if self.num_samples else None

    @property
    def tokens_share(self) -> float | None:
        """Of the tokens of all samples, those that were not generated."""
        return 1 - self.tokens / self.plain_tokens if self.plain_tokens else None
