"""The fit: what can be learnt is learnt with either loss, it stops in time, and a seed is a predictor."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from labels import HIDDEN_SIZE, learnable_trace, write_labels

from dynts_batch.errors import ConfigError, InputError
from dynts_batch.kvcache.predictor import load_predictor
from dynts_batch.training.fitting import FitConfig, Fitted, fit_predictor, ranking_loss
from dynts_batch.training.label_stream import LabelStream, Split
from dynts_batch.training.pipeline import train_predictor
from dynts_batch.training.rank_metrics import overlap

CONFIG = FitConfig(
    epochs=20, patience=20, tokens_per_batch=64, held_out=0.2, validation=0.2, learning_rate=5e-3
)


def fit(folder: Path, config: FitConfig, num_traces: int = 30) -> Fitted:
    split = Split(config.held_out, config.validation, config.seed)
    stream = LabelStream(write_labels(folder, num_traces), split)
    return fit_predictor(stream, HIDDEN_SIZE, config, torch.device("cpu"))


@pytest.mark.parametrize("loss", ["mse", "ranking"])
def test_a_learnable_rule_is_learnt_and_measured_on_other_questions(
    loss: str, tmp_path: Path
) -> None:
    fitted = fit(tmp_path, replace(CONFIG, loss=loss))
    assert fitted.metrics.overlap["20"] > 0.9
    assert fitted.metrics.spearman > 0.95
    fresh = learnable_trace("fresh")
    predicted = fitted.predictor(torch.tensor(fresh.hidden_states).float())
    assert overlap(predicted, torch.tensor(fresh.labels[fresh.hidden_positions]), 0.3) > 0.9


def test_the_same_seed_gives_the_same_predictor(tmp_path: Path) -> None:
    config = replace(CONFIG, epochs=2)
    first, second = (fit(tmp_path / str(n), config).predictor for n in range(2))
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_it_stops_when_the_overlap_gets_no_better_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    """A learning rate at which it soon gets worse."""
    config = replace(CONFIG, epochs=200, patience=2, learning_rate=0.1)
    fitted = fit(tmp_path, config)
    overlaps = [epoch.validation.mean_overlap for epoch in fitted.curve]
    assert len(overlaps) < 200
    assert max(overlaps) == overlaps[-3] > max(overlaps[-2:])


def test_the_ranking_loss_equals_its_definition_for_pairs_of_one_trace() -> None:
    scores, targets = torch.tensor([0.5, 2.0, 1.0]), torch.tensor([1.0, 3.0, 3.0])
    loss = ranking_loss(scores, targets, torch.tensor([7, 7, 8]))
    # Of the three tokens only the first two are of one trace; each is compared with the other, by shift 1 and shift 2.
    assert loss.item() == pytest.approx(F.softplus(torch.tensor(-1.5)).item())


def test_the_file_says_what_it_was_made_for_and_how_well_it_does(tmp_path: Path) -> None:
    label_dir = write_labels(tmp_path / "labels", 30)
    out = tmp_path / "predictor.safetensors"
    metrics = train_predictor(label_dir.path, out, replace(CONFIG, epochs=3))
    load_predictor(out, model="org/model", hidden_size=HIDDEN_SIZE)
    with pytest.raises(ConfigError, match="must be made for model org/other"):
        load_predictor(out, model="org/other", hidden_size=HIDDEN_SIZE)
    from safetensors import safe_open

    with safe_open(out, framework="pt") as file:
        notes = file.metadata()
    assert notes["revision"] == "abc"
    assert notes["overlap@20"] == f"{metrics.overlap['20']:.4f}"
    assert notes["loss"] == "mse"
    assert "overlap@40" in out.with_suffix(".svg").read_text()


def test_labels_that_cannot_be_split_or_hold_no_states_are_refused(tmp_path: Path) -> None:
    few = write_labels(tmp_path / "few", 5)
    with pytest.raises(InputError, match="must hold at least 10 traces"):
        train_predictor(few.path, tmp_path / "p.safetensors", CONFIG)
    with pytest.raises(ConfigError, match="held_out and validation"):
        FitConfig(held_out=0.9, validation=0.2)
