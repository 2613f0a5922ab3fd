"""The trainer: learns, and resumes to exactly what an uninterrupted training gives."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dynts_batch.lab import trainer as trainer_module
from dynts_batch.lab.curriculum import STAGES, BatchSampler, Stage
from dynts_batch.lab.tokenizer import build_tokenizer
from dynts_batch.lab.trainer import Trainer, TrainingConfig

CONFIG = TrainingConfig(tokens_per_batch=128, checkpoint_s=0.0, warmup_steps=2)


@pytest.fixture(autouse=True)
def short_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = (
        Stage("recall", 1.0, 0.0, 0.0, 0.0, 0, 0, 1.1, 400),
        Stage("short", 0.2, 0.2, 0.2, 0.2, 1, 2, 1.1, 800),
        Stage("short", 0.2, 0.2, 0.2, 0.2, 1, 2, 1.1, 600, decay=True),
    )
    monkeypatch.setattr(trainer_module, "STAGES", stages)


class StopTrainingError(Exception):
    pass


def test_a_killed_training_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trainer(tmp_path / "whole", CONFIG).run()
    steps = []
    checkpoint = Trainer._checkpoint

    def stop_after_the_third(self: Trainer) -> None:
        checkpoint(self)
        steps.append(self.progress.step)
        if len(steps) == 3:
            raise StopTrainingError

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_checkpoint", stop_after_the_third)
        with pytest.raises(StopTrainingError):
            Trainer(tmp_path / "resumed", CONFIG).run()
    resumed = Trainer(tmp_path / "resumed", CONFIG)
    resumed.run()
    assert resumed.progress.step > steps[-1]
    whole, again = (
        load_file(tmp_path / name / "model.safetensors") for name in ("whole", "resumed")
    )
    for name, tensor in whole.items():
        assert torch.equal(tensor, again[name]), name


def test_batches_depend_on_seed_stage_and_step_alone() -> None:
    tokenizer, stage = build_tokenizer(), STAGES[-1]
    first, second = (BatchSampler(tokenizer, 3, 2000).draw(stage, 17) for _ in range(2))
    assert torch.equal(first.token_ids, second.token_ids)
    assert torch.equal(first.weights, second.weights)
    other = BatchSampler(tokenizer, 4, 2000).draw(stage, 17)
    assert not torch.equal(first.token_ids, other.token_ids)


def test_the_prompt_and_the_padding_carry_no_loss_and_every_answer_does() -> None:
    tokenizer = build_tokenizer()
    batch = BatchSampler(tokenizer, 0, 4000).draw(
        Stage("long", 0.0, 0.0, 0.0, 0.0, 3, 5, 1.0, 1), 0
    )
    opening = tokenizer.convert_tokens_to_ids("<think>")
    for token_ids, weights in zip(batch.token_ids.tolist(), batch.weights, strict=True):
        start = token_ids.index(opening) + 1
        end = token_ids.index(tokenizer.eos_token_id) + 1
        assert (weights[:start] == 0).all()
        assert (weights[start:end] > 0).all()
        assert (weights[end:] == 0).all()
