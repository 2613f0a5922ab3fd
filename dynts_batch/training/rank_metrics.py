"""How well predicted importance ranks the tokens of a trace: overlap of the top, and rank correlation."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch

#: Shares of the top tokens at which predicted and true sets are compared.
OVERLAP_SHARES = (0.2, 0.3, 0.4)


@dataclass(frozen=True)
class RankMetrics:
    """Means over traces. `overlap`: share of the true top tokens found in the predicted top of equal size."""

    overlap: dict[str, float]
    spearman: float
    mse: float
    num_traces: int

    @property
    def mean_overlap(self) -> float:
        """What an early stop watches."""
        return sum(self.overlap.values()) / len(self.overlap)

    def notes(self) -> dict[str, str]:
        """As metadata of the predictor's file."""
        shown = {f"overlap@{share}": value for share, value in self.overlap.items()}
        return {
            k: f"{v:.4f}" for k, v in {**shown, "spearman": self.spearman, "mse": self.mse}.items()
        }


def average(rows: Iterable[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]) -> RankMetrics:
    """Of each trace: predicted scores, labels and the targets that stood for the labels, [N] each."""
    found = []
    for predicted, labels, targets in rows:
        overlaps = [overlap(predicted, labels, share) for share in OVERLAP_SHARES]
        mse = (predicted - targets).square().mean().item()
        found.append([*overlaps, spearman(predicted, labels), mse])
    *overlaps, rank, mse = torch.tensor(found).mean(dim=0).tolist()
    names = [f"{share * 100:.0f}" for share in OVERLAP_SHARES]
    return RankMetrics(dict(zip(names, overlaps, strict=True)), rank, mse, len(found))


def overlap(predicted: torch.Tensor, true: torch.Tensor, share: float) -> float:
    """Share of the true top `share` of tokens found in the predicted top, both [T]."""
    k = max(1, int(len(true) * share))
    hits = torch.isin(predicted.topk(k).indices, true.topk(k).indices)
    return hits.float().mean().item()


def spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    """Rank correlation of two [T] tensors (ties broken by position)."""
    ranks = torch.stack([x.argsort().argsort().double() for x in (a, b)])
    return torch.corrcoef(ranks)[0, 1].item()
