"""Fits the importance predictor to a stream of labels, and measures it on held-out questions.

Owns targets, losses and the training loop. Knows nothing about files or models.
"""

import copy
import logging
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.predictor import ImportancePredictor, Inputs
from dynts_batch.training.label_dir import LabelledTrace
from dynts_batch.training.label_stream import LabelStream, TokenBatch, places, tensors
from dynts_batch.training.rank_metrics import RankMetrics, average

logger = logging.getLogger(__name__)

#: The scale of the targets comes from about so many tokens of the training questions.
SCALE_TOKENS = 1_000_000
#: The ranking loss compares a token with so many others of its trace in the batch.
RANKING_PAIRS = 4


@dataclass(frozen=True)
class FitConfig:
    """Training settings. The paper gives AdamW, weight decay, warm-up, clipping and 15 epochs."""

    loss: Literal["mse", "ranking"] = "mse"
    """"mse": distance to the rescaled label, as in the paper. "ranking": pairs of tokens of one
    trace must be in the right order."""
    inputs: Inputs = "state+place"
    """"state": the predictor reads a token's hidden state, as in the paper. "state+place": it also
    reads how far the token stands after the prompt, and the length of the prompt."""
    epochs: int = 15
    patience: int = 3
    """Stop after so many epochs without a better overlap on the validation questions. The best
    epoch is kept."""
    tokens_per_batch: int = 4096
    shuffle_tokens: int = 262_144
    """Tokens held in memory at once."""
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    held_out: float = 0.1
    """Share of the questions that serve only for measuring."""
    validation: float = 0.05
    """Share of the questions that decide when to stop."""
    seed: int = 0
    exponent: float = 0.3
    """The target is (label / 99th percentile) ** exponent, because labels are tiny and
    heavy-tailed."""

    def __post_init__(self) -> None:
        if not (0 < self.held_out < 1 and 0 < self.validation < 1 - self.held_out):
            raise ConfigError(
                "held_out and validation must be shares above 0 that leave questions to train on,"
                f" got {self.held_out} and {self.validation}"
            )
        if min(self.epochs, self.patience, self.tokens_per_batch, self.shuffle_tokens) < 1:
            raise ConfigError(
                "epochs, patience, tokens_per_batch and shuffle_tokens must be at least 1, got"
                f" {self.epochs}, {self.patience}, {self.tokens_per_batch} and"
                f" {self.shuffle_tokens}"
            )


@dataclass(frozen=True)
class Epoch:
    """A point of the learning curve: mean training loss, and metrics on validation questions."""

    loss: float
    validation: RankMetrics


@dataclass(frozen=True)
class Fitted:
    """A trained predictor. `metrics` are on held-out questions, which took no part in training."""

    predictor: ImportancePredictor
    metrics: RankMetrics
    curve: tuple[Epoch, ...]
    notes: dict[str, str]


def fit_predictor(
    stream: LabelStream, hidden_size: int, config: FitConfig, device: torch.device
) -> Fitted:
    """Train on training questions, stop by the validation ones, measure on the held-out ones."""
    torch.manual_seed(config.seed)
    survey = _survey(stream)
    target = Target(survey.scale, config.exponent)
    untrained = ImportancePredictor(hidden_size, config.inputs)
    if config.inputs == "state+place":
        untrained.place_mean.copy_(survey.place_mean)
        untrained.place_scale.copy_(survey.place_scale)
    fitting = _Fitting(untrained.to(device), target, config, survey.num_tokens)
    curve = tuple(_train(fitting, stream, config))
    predictor = fitting.best.eval()
    metrics = evaluate(predictor, stream.traces("held_out"), target)
    settings = {key: str(value) for key, value in asdict(config).items()}
    trained = {
        "scale": repr(survey.scale),
        "num_tokens": str(survey.num_tokens),
        "epochs_run": str(len(curve)),
    }
    return Fitted(predictor.cpu(), metrics, curve, {**settings, **trained, **metrics.notes()})


@dataclass(frozen=True)
class Target:
    """The monotone rescaling of labels that the predictor learns. It keeps their order."""

    scale: float
    exponent: float

    def __call__(self, labels: torch.Tensor) -> torch.Tensor:
        return (labels / self.scale).pow(self.exponent)


@torch.no_grad()
def evaluate(
    predictor: ImportancePredictor, traces: Iterator[LabelledTrace], target: Target
) -> RankMetrics:
    """Rank metrics per trace, averaged."""
    device = next(predictor.parameters()).device

    def rows() -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        for trace in traces:
            hidden_states, where, labels = tensors(trace)
            scores = predictor(hidden_states.float().to(device), where.to(device)).cpu()
            yield scores, labels, target(labels)

    return average(rows())


class _Fitting:
    """The predictor while it trains, and the best one so far."""

    def __init__(
        self, predictor: ImportancePredictor, target: Target, config: FitConfig, num_tokens: int
    ) -> None:
        self.predictor, self.best, self._target, self._config = (
            predictor,
            predictor,
            target,
            config,
        )
        self._optimizer = torch.optim.AdamW(
            predictor.parameters(),
            config.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=config.weight_decay,
        )
        # Every pool of tokens may end in a batch that is not full.
        pools = 1 + num_tokens // config.shuffle_tokens
        steps = config.epochs * (num_tokens // config.tokens_per_batch + pools)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: _warm_up_then_cosine(step / steps, config.warmup)
        )

    def step(self, batch: TokenBatch) -> float:
        device = next(self.predictor.parameters()).device
        scores = self.predictor(batch.hidden_states.to(device), batch.places.to(device))
        targets = self._target(batch.labels).to(device)
        if self._config.loss == "mse":
            loss = (scores - targets).square().mean()
        else:
            loss = ranking_loss(scores, targets, batch.traces.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.predictor.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._schedule.step()
        return loss.item()

    def validate(self, traces: Iterator[LabelledTrace]) -> RankMetrics:
        return evaluate(self.predictor, traces, self._target)

    def keep(self) -> None:
        self.best = copy.deepcopy(self.predictor)


def ranking_loss(scores: torch.Tensor, targets: torch.Tensor, traces: torch.Tensor) -> torch.Tensor:
    """Logistic loss of pairs of tokens of one trace; arguments are [N] each.

    The weight of a pair is the distance of its targets.
    """
    order = traces.argsort(stable=True)
    scores, targets, traces = scores[order], targets[order], traces[order]
    total, weight = scores.new_zeros(()), scores.new_tensor(1e-12)
    for shift in range(1, RANKING_PAIRS + 1):
        gap = (targets - targets.roll(shift)) * (traces == traces.roll(shift))
        total = total + (gap.abs() * F.softplus(-gap.sign() * (scores - scores.roll(shift)))).sum()
        weight = weight + gap.abs().sum()
    return total / weight


def _train(fitting: _Fitting, stream: LabelStream, config: FitConfig) -> Iterator[Epoch]:
    best, num_worse = -math.inf, 0
    for epoch in range(config.epochs):
        batches = stream.batches(
            config.tokens_per_batch, config.shuffle_tokens, config.seed * config.epochs + epoch
        )
        losses = [fitting.step(batch) for batch in batches]
        metrics = fitting.validate(stream.traces("validation"))
        loss = sum(losses) / len(losses)
        logger.info("epoch=%d/%d loss=%.5f %s", epoch + 1, config.epochs, loss, metrics.notes())
        yield Epoch(loss, metrics)
        if metrics.mean_overlap > best:
            best, num_worse = metrics.mean_overlap, 0
            fitting.keep()
        else:
            num_worse += 1
            if num_worse == config.patience:
                return


@dataclass(frozen=True)
class _Survey:
    """The training tokens: their number, the 99th percentile of their labels, and their places.

    Places have a mean and a standard deviation. The deviation is infinite if all places are the
    same, so that they have no effect.
    """

    num_tokens: int
    scale: float
    place_mean: torch.Tensor
    place_scale: torch.Tensor


def _survey(stream: LabelStream) -> _Survey:
    """Count all training tokens. The scales come from about the first million."""
    num_tokens, labels, where, num_labels = 0, [], [], 0
    for trace in stream.traces("train"):
        num_tokens += len(trace.hidden_positions)
        if num_labels < SCALE_TOKENS:
            labels.append(torch.tensor(trace.labels))
            where.append(places(trace))
            num_labels += len(trace.labels)
    ordered, seen = torch.cat(labels).sort().values, torch.cat(where)
    scale = float(ordered[int(0.99 * (len(ordered) - 1))])
    spread = seen.std(dim=0, correction=0)
    return _Survey(num_tokens, scale, seen.mean(dim=0), spread.masked_fill(spread == 0, torch.inf))


def _warm_up_then_cosine(progress: float, warmup: float) -> float:
    if progress < warmup:
        return progress / warmup
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))
