"""An outcome as JSON data: what is promised, on which data and in which order, and what was
found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dynts_batch.report.tuning.betting import Verdict
from dynts_batch.report.tuning.outcome import Outcome, Tried
from dynts_batch.report.tuning.spent import Spent

#: Words for verdicts. What is not certified is not shown to be bad.
_WORDS: dict[Verdict, str] = {"holds": "certified", "fails": "loses more", "open": "not shown"}
_LIMITS = (
    "It holds for questions drawn from where these came from: the same mix and lengths, model,"
    " engine and grader.",
    "It is void if the loss, delta, the ladder or the grader was chosen after looking at these"
    " answers.",
    "One delta for one claim: another tuning on the same questions has a delta of its own, and the"
    " two add up.",
)


def certificate(outcome: Outcome, frozen: Mapping[str, Any], model: Mapping[str, Any]) -> dict:
    """`frozen`: what was decided before the first answer. `model` identifies the model that was
    run."""
    choice = outcome.choice
    return {
        "claim": claim(outcome, is_graded=bool(frozen["is_graded"])),
        "choice": None
        if choice is None
        else {"policy": choice.rung.policy, "budget": choice.rung.budget},
        "delta_of_a_chain": outcome.ladder.delta,
        "frozen": dict(frozen),
        "ladder": _ladder(outcome),
        "spent": {**_spent(outcome.spent), "share_of_all_candidates": outcome.share_of_all},
        "model": dict(model),
        "limits": list(_LIMITS),
    }


def claim(outcome: Outcome, *, is_graded: bool) -> str:
    """The claim, in one sentence."""
    terms = outcome.ladder.terms
    promise = (
        f"less than {100 * terms.most_loss:g} points of accuracy against the full cache"
        if is_graded
        else f"less than {100 * terms.most_loss:g}% of the full cache's answers"
    )
    confidence = f"with confidence {1 - terms.delta:.4g}"
    if (choice := outcome.choice) is not None:
        return f"On questions like these, {choice.rung} stored tokens loses {promise}, {confidence}"
    if any(tried.is_certified for tried in outcome.tried):
        return (
            f"Candidates that lose {promise}, {confidence}, cost more than the full cache here:"
            " keep it"
        )
    return f"No candidate is shown to lose {promise}, {confidence}: keep the full cache"


def word(tried: Tried) -> str:
    """The verdict on a rung."""
    is_unfinished = tried.trial.num_wanted is not None
    return "unfinished" if is_unfinished else _WORDS[tried.trial.judgement.verdict]


def _ladder(outcome: Outcome) -> list[dict[str, Any]]:
    """The rungs in the order in which they are tried."""
    found = {tried.rung: tried for tried in outcome.tried}
    return [
        {
            "policy": rung.policy,
            "budget": rung.budget,
            **(_tried(found[rung]) if rung in found else {"verdict": "not tried"}),
        }
        for rung in outcome.ladder.rungs
    ]


def _tried(tried: Tried) -> dict[str, Any]:
    judgement, num = tried.trial.judgement, len(tried.losses)
    return {
        "verdict": word(tried),
        "questions": num,
        "questions_until_verdict": judgement.num,
        "questions_left_out": tried.trial.num_seen - num,
        "wealth": judgement.wealth,
        "mean_loss": tried.mean_loss,
        "loss_at_least": tried.bounds[0],
        "loss_at_most": tried.bounds[1],
        "share_differing": tried.share_differing,
        "cost_over_full": tried.cost,
        "kv_bytes_over_full": tried.memory,
        **_spent(tried.spent),
    }


def _spent(spent: Spent) -> dict[str, Any]:
    return {
        "rows": spent.num_rows,
        "completion_tokens": spent.completion_tokens,
        "device_s": spent.device_s,
        "usd": spent.usd,
    }
