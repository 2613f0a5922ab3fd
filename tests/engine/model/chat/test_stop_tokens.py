"""Laws of stop tokens: a completion ends where any of the model's files, or its chat template,
says that a turn ends."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from dynts_batch.config import ModelConfig
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.errors import ConfigError

PAD, END, USER = 0, 1, 2


def stop_tokens(
    source: Path, folder: Path, *, generation: Any = None, eos: str | None, template: str | None
) -> frozenset[int]:
    """Of the model in `source` with another end in generation_config.json,
    tokenizer and chat template."""
    shutil.copytree(source, folder, dirs_exist_ok=True)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": generation}))
    config = json.loads((folder / "config.json").read_text()) | {"eos_token_id": None}
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token, tokenizer.chat_template = eos, template
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    return resolve_model(ModelConfig(name=str(folder), device="cpu")).stop_token_ids


def ended_by(end: str) -> str:
    return f"{{% for m in messages %}}<|user|>{{{{ m.content }}}}{end}{{% endfor %}}<|assistant|>"


@pytest.mark.parametrize(
    ("generation", "eos", "template", "expected"),
    [
        (PAD, "<|end|>", None, {PAD, END}),
        ([PAD, USER], "<|end|>", None, {PAD, END, USER}),
        (PAD, None, ended_by("<|end|>\n"), {PAD, END}),
        (None, "<|end|>", ended_by("\n<|pad|>"), {PAD, END}),
        # Text that ends a turn is no token, nor is one that belongs to thinking.
        (None, "<|end|>", ended_by("###"), {END}),
        (None, "<|end|>", ended_by("</think>"), {END}),
        # The model has no place for it, so it is never written.
        ([END, 100_000], None, None, {END}),
    ],
)
def test_a_completion_ends_at_any_end_that_the_model_names(
    generation: Any,
    eos: str | None,
    template: str | None,
    expected: set[int],
    tiny_model_dirs: dict[str, Path],
    tmp_path: Path,
) -> None:
    """A fine-tune whose turns end otherwise than its base model's texts
    wrote on until its last token."""
    found = stop_tokens(
        tiny_model_dirs["llama"], tmp_path, generation=generation, eos=eos, template=template
    )
    assert found == expected


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        (None, "must say which token ends a text"),
        (-1, r"must be a token id or a list of them, got -1"),
        ("<|end|>", r"must be a token id or a list of them, got '<\|end\|>'"),
        ([END, -1], r"got \[1, -1\]"),
        (100_000, "must say which token ends a text, got none of its vocabulary"),
    ],
)
def test_a_model_that_names_no_token_as_its_end_is_refused(
    generation: Any, message: str, tiny_model_dirs: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        stop_tokens(
            tiny_model_dirs["llama"], tmp_path, generation=generation, eos=None, template=None
        )
