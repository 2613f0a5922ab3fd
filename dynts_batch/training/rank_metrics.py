"""How well predicted importance ranks a trace's tokens: overlap of the top, rank correlation."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

#: Predicted and true sets are compared for these shares of top tokens.
OVERLAP_SHARES = (0.2, 0.3, 0.4)


@dataclass(frozen=True)
class RankMetrics:
    """Means over traces. `overlap`: share of the true top that a predicted top of that size has."""

    overlap: dict[str, float]
    spearman: float
    mse: float
    num_traces: int

    @property
    def mean_overlap(self) -> float:
        """The figure that early stopping watches."""
        return sum(self.overlap.values()) / len(self.overlap)

    def notes(self) -> dict[str, str]:
        """The metrics as metadata of the predictor's file."""
        shown = {f"overlap@{share}": value for share, value in self.overlap.items()}
        return {
            k: f"{v:.4f}" for k, v in {**shown, "spearman": self.spearman, "mse": self.mse}.items()
        }


def average(rows: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> RankMetrics:
    """`rows` has each trace's predicted scores, labels and targets made of the labels, [N] each."""
    found = []
    for predicted, labels, targets in rows:
        overlaps = [overlap(predicted, labels, share) for share in OVERLAP_SHARES]
        mse = (predicted - targets).square().mean().item()
        found.append([*overlaps, spearman(predicted, labels), mse])
    *overlaps, rank, mse = torch.tensor(found).mean(dim=0).tolist()
    names = [f"{share * 100:.0f}" for share in OVERLAP_SHARES]
    return RankMetrics(dict(zip(names, overlaps, strict=True)), rank, mse, len(found))


def overlap(predicted: torch.Tensor, true: torch.Tensor, share: float) -> float:
    """Share of the true top `share` of tokens that is in the predicted top; both are [T]."""
    k = max(1, int(len(true) * share))
    hits = torch.isin(predicted.topk(k).indices, true.topk(k).indices)
    return hits.float().mean().item()


def spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    """Rank correlation of two [T] tensors. Position breaks ties."""
    ranks = torch.stack([x.argsort().argsort().double() for x in (a, b)])
    return torch.corrcoef(ranks)[0, 1].item()
