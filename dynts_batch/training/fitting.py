"""Fits the importance predictor to labelled traces and measures it on held-out questions.

Owns targets, the training loop and the rank metrics. Knows nothing about where traces come from.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from dynts_batch.kvcache.predictor import ImportancePredictor
from dynts_batch.training.labels import LabelledTrace

logger = logging.getLogger(__name__)

#: Shares of the top tokens at which predicted and true sets are compared.
OVERLAP_SHARES = (0.2, 0.3, 0.4)


@dataclass(frozen=True)
class FitConfig:
    """Training settings, the paper's where it gives them (AdamW, weight decay, warm-up, clipping, 15 epochs)."""

    epochs: int = 15
    tokens_per_batch: int = 4096
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    held_out: float = 0.1
    seed: int = 0
    exponent: float = 0.3
    """Labels are tiny and heavy-tailed: the target is (label / 99th percentile) ** exponent."""


@dataclass(frozen=True)
class Metrics:
    """Means over held-out traces. `overlap`: share of the true top tokens found in the predicted top of equal size."""

    overlap: dict[str, float]
    spearman: float
    mse: float

    def notes(self) -> dict[str, str]:
        """As metadata of the predictor's file."""
        shown = {f"overlap@{share}": value for share, value in self.overlap.items()}
        return {
            k: f"{v:.4f}" for k, v in {**shown, "spearman": self.spearman, "mse": self.mse}.items()
        }


def fit_predictor(
    traces: Sequence[LabelledTrace], config: FitConfig
) -> tuple[ImportancePredictor, Metrics, dict[str, str]]:
    """Train on all but a held-out share of the traces, one question each.

    Returns the predictor, its held-out metrics, and notes for its file: settings, the targets' scale, the metrics.
    Raises: ValueError with fewer than two traces.
    """
    if len(traces) < 2:
        raise ValueError(f"a predictor needs at least 2 correct traces, got {len(traces)}")
    torch.manual_seed(config.seed)
    num_held_out = max(1, int(len(traces) * config.held_out))
    held_out, train = traces[:num_held_out], traces[num_held_out:]
    hidden_states = torch.cat([trace.hidden_states for trace in train]).float()
    labels = torch.cat([trace.labels for trace in train])
    scale = float(torch.sort(labels).values[int(0.99 * (len(labels) - 1))])
    predictor = ImportancePredictor(hidden_states.shape[-1]).to(hidden_states.device)
    _train(predictor, hidden_states, _target(labels, scale, config), config)
    metrics = evaluate(predictor, held_out, scale, config)
    settings = {key: str(value) for key, value in asdict(config).items()}
    notes = {**settings, "scale": repr(scale), "num_traces": str(len(train)), **metrics.notes()}
    return predictor.eval(), metrics, notes


@torch.no_grad()
def evaluate(
    predictor: ImportancePredictor, traces: Sequence[LabelledTrace], scale: float, config: FitConfig
) -> Metrics:
    """Rank metrics per trace, averaged."""
    rows = []
    for trace in traces:
        predicted = predictor(trace.hidden_states.float())
        overlaps = [overlap(predicted, trace.labels, share) for share in OVERLAP_SHARES]
        mse = (predicted - _target(trace.labels, scale, config)).square().mean().item()
        rows.append([*overlaps, spearman(predicted, trace.labels), mse])
    *overlaps, rank, mse = torch.tensor(rows).mean(dim=0).tolist()
    names = [f"{share * 100:.0f}" for share in OVERLAP_SHARES]
    return Metrics(dict(zip(names, overlaps, strict=True)), rank, mse)


def overlap(predicted: torch.Tensor, true: torch.Tensor, share: float) -> float:
    """Share of the true top `share` of tokens found in the predicted top, both [T]."""
    k = max(1, int(len(true) * share))
    hits = torch.isin(predicted.topk(k).indices, true.topk(k).indices)
    return hits.float().mean().item()


def spearman(a: torch.Tensor, b: torch.Tensor) -> float:
    """Rank correlation of two [T] tensors (ties broken by position)."""
    ranks = torch.stack([x.argsort().argsort().double() for x in (a, b)])
    return torch.corrcoef(ranks)[0, 1].item()


def _target(labels: torch.Tensor, scale: float, config: FitConfig) -> torch.Tensor:
    return (labels / scale).pow(config.exponent)


def _train(
    predictor: ImportancePredictor,
    hidden_states: torch.Tensor,
    targets: torch.Tensor,
    config: FitConfig,
) -> None:
    optimizer = torch.optim.AdamW(
        predictor.parameters(),
        config.learning_rate,
        betas=(0.9, 0.95),
        weight_decay=config.weight_decay,
    )
    steps_per_epoch = -(-len(targets) // config.tokens_per_batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        config.learning_rate,
        total_steps=config.epochs * steps_per_epoch,
        pct_start=config.warmup,
        cycle_momentum=False,
    )
    for epoch in range(config.epochs):
        total = 0.0
        for batch in torch.randperm(len(targets), device=targets.device).split(
            config.tokens_per_batch
        ):
            loss = (predictor(hidden_states[batch]) - targets[batch]).square().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(predictor.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            total += loss.item() * len(batch)
        logger.info("epoch=%d/%d mse=%.5f", epoch + 1, config.epochs, total / len(targets))
