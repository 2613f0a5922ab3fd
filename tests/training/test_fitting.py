"""The fit: what can be learnt is learnt with either loss, it stops in time,
and a seed is a predictor."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from labels import HIDDEN_SIZE, learnable_trace, write_labels

from dynts_batch.errors import ConfigError, InputError
from dynts_batch.kvcache.model_id import ModelId
from dynts_batch.kvcache.predictor import load_predictor
from dynts_batch.training.fitting import FitConfig, Fitted, fit_predictor, ranking_loss
from dynts_batch.training.label_dir import LabelDir
from dynts_batch.training.label_stream import LabelStream, Split, tensors
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
    hidden_states, places, labels = tensors(fresh)
    assert overlap(fitted.predictor(hidden_states.float(), places), labels, 0.3) > 0.9


def test_what_follows_from_the_place_is_learnt_by_a_predictor_that_reads_it(
    tmp_path: Path,
) -> None:
    label_dir = LabelDir(str(tmp_path))
    traces = [
        replace(trace, labels=np.linspace(1e-5, 1e-2, len(trace.labels), dtype=np.float32))
        for trace in (learnable_trace(f"q{index}") for index in range(30))
    ]
    label_dir.commit_shard(0, traces, Counter(), HIDDEN_SIZE)
    stream = LabelStream(label_dir, Split(CONFIG.held_out, CONFIG.validation, CONFIG.seed))
    overlaps = [
        fit_predictor(
            stream, HIDDEN_SIZE, replace(CONFIG, epochs=5, inputs=inputs), torch.device("cpu")
        ).metrics.overlap["20"]
        for inputs in ("state", "state+place")
    ]
    assert overlaps[0] < 0.4 < 0.9 < overlaps[1]


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
    # Of the three tokens only the first two are of one trace;
    # each is compared with the other, by shift 1 and shift 2.
    assert loss.item() == pytest.approx(F.softplus(torch.tensor(-1.5)).item())


def test_the_file_says_what_it_was_made_for_and_how_well_it_does(tmp_path: Path) -> None:
    label_dir = write_labels(tmp_path / "labels", 30)
    out = tmp_path / "predictor.safetensors"
    metrics = train_predictor(label_dir.path, out, replace(CONFIG, epochs=3))
    load_predictor(out, model=ModelId("org/model"), hidden_size=HIDDEN_SIZE)
    other = ModelId("org/model", weights_sha256="0dd")
    with pytest.raises(ConfigError, match=r"must be made for model org/model \(weights 0dd\)"):
        load_predictor(out, model=other, hidden_size=HIDDEN_SIZE)
    from safetensors import safe_open

    with safe_open(out, framework="pt") as file:
        notes = file.metadata()
    assert (notes["revision"], notes["weights_sha256"]) == ("abc", "d1ce")
    assert notes["overlap@20"] == f"{metrics.overlap['20']:.4f}"
    assert notes["loss"] == "mse"
    assert "overlap@40" in out.with_suffix(".svg").read_text()


def test_labels_that_cannot_be_split_or_hold_no_states_are_refused(tmp_path: Path) -> None:
    few = write_labels(tmp_path / "few", 5)
    with pytest.raises(InputError, match="must hold at least 10 traces"):
        train_predictor(few.path, tmp_path / "p.safetensors", CONFIG)
    with pytest.raises(ConfigError, match="held_out and validation"):
        FitConfig(held_out=0.9, validation=0.2)
