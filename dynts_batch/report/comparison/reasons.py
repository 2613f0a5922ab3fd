"""Why a right answer costs less in one run: three factors whose product is the ratio of the
prices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from dynts_batch.report.measures import Measures, Right
from dynts_batch.report.totals import Totals
from dynts_batch.report.units import MUCH_LESS, times

#: A ratio this near to 1 is not worth a word.
_EQUAL = 0.005


@dataclass(frozen=True)
class Factors:
    """Factors of a right answer's price: dollars per device second, device seconds per token, and
    generated tokens per right answer."""

    usd_per_s: float
    s_per_token: float
    tokens_per_right: float

    @classmethod
    def of(cls, run: Measures, what: Right) -> Factors | None:
        """None if prices, times or right answers are unknown, or nothing is right."""
        totals, num_right = run.totals, run.num_right(what)
        usd, tokens = totals.dollars.total, totals.completion_tokens
        if not usd or not totals.device_s or not tokens or not num_right:
            return None
        return cls(usd / totals.device_s, totals.device_s / tokens, tokens / num_right)

    def over(self, other: Factors) -> Factors:
        """Each factor over that of `other`."""
        return Factors(
            self.usd_per_s / other.usd_per_s,
            self.s_per_token / other.s_per_token,
            self.tokens_per_right / other.tokens_per_right,
        )

    @property
    def product(self) -> float:
        return prod((self.usd_per_s, self.s_per_token, self.tokens_per_right))


def reasons(best: Measures, others: Sequence[Measures], what: Right) -> list[str]:
    """A sentence on each of `others` whose price is known: the factors, and what explains a token's
    time."""
    own, found = Factors.of(best, what), []
    for run in others:
        its = Factors.of(run, what)
        if own is not None and its is not None:
            found.append(_sentence(best, run, own.over(its), what))
    return found


def _sentence(best: Measures, run: Measures, ratio: Factors, what: Right) -> str:
    parts = [
        f"{times(ratio.s_per_token)} the device time per token{_behind(best.totals, run.totals)}",
        f"{times(ratio.tokens_per_right)} the tokens per {what}",
    ]
    if abs(ratio.usd_per_s - 1) > _EQUAL:
        parts.append(f"{times(ratio.usd_per_s)} the price of a device second")
    price = f"costs {ratio.product:.2f}x of"
    if ratio.product < MUCH_LESS:
        price = f"is {1 / ratio.product:,.0f} times cheaper than"
    return f"{best.label} {price} {run.label}: {', '.join(parts)}."


def _behind(best: Totals, other: Totals) -> str:
    """What makes a token take more or less time, if known."""
    notes = []
    if best.device is not None and other.device is not None:
        together = (best.device.mean_running, other.device.mean_running)
        notes.append("{:.1f} sequences together against {:.1f}".format(*together))
    notes += [
        f"{whose} was preempted {totals.num_preemptions:,} times"
        for whose, totals in (("it", best), ("the other", other))
        if totals.num_preemptions
    ]
    return f" ({'; '.join(notes)})" if notes else ""
