"""The stream gives every training token once, mixed, and never a token of a held-out question."""

from pathlib import Path

import pytest
import torch
from labels import learnable_trace, write_labels

from dynts_batch.training.label_dir import LabelDir
from dynts_batch.training.label_stream import LabelStream, Split

SPLIT = Split(held_out=0.3, validation=0.2, seed=0)


@pytest.fixture
def label_dir(tmp_path: Path) -> LabelDir:
    return write_labels(tmp_path, 40)


def test_every_question_is_on_one_side_whatever_the_order_of_files(label_dir: LabelDir) -> None:
    stream = LabelStream(label_dir, SPLIT)
    sides = {
        part: {trace.request_id for trace in stream.traces(part)}
        for part in ("train", "validation", "held_out")
    }
    assert sum(len(names) for names in sides.values()) == len(set().union(*sides.values())) == 40
    assert all(len(names) >= 4 for names in sides.values())
    again = LabelStream(label_dir, SPLIT).traces("train", shuffle_seed=5)
    assert {trace.request_id for trace in again} == sides["train"]
    assert sides["held_out"] != {
        trace.request_id for trace in LabelStream(label_dir, Split(0.3, 0.2, 1)).traces("held_out")
    }


@pytest.mark.parametrize("shuffle_tokens", [150, 100_000])
def test_an_epoch_is_every_training_token_once(label_dir: LabelDir, shuffle_tokens: int) -> None:
    stream = LabelStream(label_dir, SPLIT)
    batches = list(stream.batches(64, shuffle_tokens, seed=1))
    names = [trace.request_id for trace in stream.traces("train")]
    expected = torch.cat([torch.tensor(learnable_trace(name).labels[::2]) for name in names])
    found = torch.cat([batch.labels for batch in batches])
    assert torch.equal(found.sort().values, expected.sort().values)
    assert not torch.equal(found, expected)
    for batch in batches:
        assert len(batch.labels) == len(batch.hidden_states) == len(batch.traces) <= 64
        rule = 1e-4 * (3 * batch.hidden_states[:, 3]).exp()
        torch.testing.assert_close(batch.labels, rule, rtol=1e-3, atol=0)
        number, logarithm, prompt_tokens = batch.places.unbind(dim=-1)
        assert set(number.tolist()) <= set(range(1, 200, 2))  # every other token has a state
        torch.testing.assert_close(number.log(), logarithm)
        assert set(prompt_tokens.tolist()) <= {52, 53}  # of q0 and q10, say
    other = torch.cat([batch.labels for batch in stream.batches(64, shuffle_tokens, seed=2)])
    assert not torch.equal(found, other)
