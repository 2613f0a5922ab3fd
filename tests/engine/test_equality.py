"""The engine against Hugging Face `generate`: token for token, for every promised architecture."""

from pathlib import Path

import pytest
import torch
from greedy_runs import greedy_engine, huggingface, random_prompts, run
from tiny_models import ARCHITECTURES
from transformers import AutoTokenizer

from dynts_batch.config import PolicyConfig
from dynts_batch.engine.model.files import model_path
from dynts_batch.kvcache.arena import KVArena
from dynts_batch.records import Request


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_full_equals_huggingface_generate_for_mixed_lengths_in_one_batch(
    architecture: str, tiny_model_dirs: dict[str, Path]
) -> None:
    """More prompts than lanes, so that lanes are refilled while others run;
    the sliding window is shorter than a row."""
    prompts = random_prompts(seed=3, count=6)
    folder = tiny_model_dirs[architecture]
    assert run(greedy_engine(folder, max_seqs=3), prompts) == huggingface(folder, prompts)


def test_full_equals_huggingface_generate_on_the_embedded_model() -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path("embedded"))
    questions = [
        "Let a = 3, b = 4, c = a + 2, d = b + c. What is d - c?",
        "Natalia sold 48 clips.",
        "été 東京 🎉",
    ]
    prompts = [
        tokenizer.apply_chat_template([{"role": "user", "content": q}], add_generation_prompt=True)[
            "input_ids"
        ]
        for q in questions
    ]
    expected = huggingface(model_path("embedded"), prompts)
    assert run(greedy_engine("embedded", max_seqs=2), prompts) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_row_is_the_same_alone_and_among_31_others(
    architecture: str, tiny_model_dirs: dict[str, Path]
) -> None:
    prompts = random_prompts(seed=4, count=32)
    policy = PolicyConfig(name="random", budget=48, window_size=4, keep_ratio=0.5)
    folder = tiny_model_dirs[architecture]
    together = run(greedy_engine(folder, 32, policy), prompts)
    engine = greedy_engine(folder, 1, policy)
    for index in (0, 31):
        requests = [Request(str(index), prompt_token_ids=prompts[index])]
        assert [list(c.completion_token_ids) for c in engine.generate(requests)] == [
            together[index]
        ]


def test_garbage_beyond_a_lanes_end_reaches_no_other_row(
    tiny_model_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The arena was once allocated uninitialised. Where the memory held NaN, masked slots still
    poisoned shorter rows, since 0 x NaN is NaN: rows then differed from run to run."""
    stored: list[torch.Tensor] = []
    build = KVArena.__init__

    def keep(self: KVArena, *args: object) -> None:
        build(self, *args)  # type: ignore[arg-type]
        stored.extend(self.stored(0, self.max_seqs, self.capacity))

    monkeypatch.setattr(KVArena, "__init__", keep)
    greedy_engine(tiny_model_dirs["llama"], max_seqs=4)
    assert all(tensor.isfinite().all() for tensor in stored)
