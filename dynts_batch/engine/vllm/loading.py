"""Starts vLLM on a model's files, or says in one line why it cannot."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import shorten
from typing import Any

from dynts_batch.engine.model.checkpoint.skeleton import MODEL_ERRORS
from dynts_batch.engine.out_of_memory import is_out_of_memory
from dynts_batch.engine.vllm.library import import_vllm
from dynts_batch.errors import ConfigError

_MOST_CHARS = 500  # some of them name every weight


def start_vllm(arguments: dict[str, Any]) -> Any:
    """vLLM's LLMEngine in this process, made of these EngineArgs, once it has computed two tokens.

    Raises: ConfigError where vLLM refuses them, or cannot run the model on this machine.
    """
    try:
        with _without_companions(arguments["model"]) as path:
            made = import_vllm("vllm.engine.arg_utils").EngineArgs(**{**arguments, "model": path})
            llm = import_vllm("vllm.v1.engine.llm_engine").LLMEngine.from_engine_args(made)
        _try_a_request(llm)
        return llm
    except ConfigError:
        raise
    except MODEL_ERRORS as error:
        if is_out_of_memory(error):
            raise
        raise ConfigError(f"engine.kind=vllm: {_reason(error)}") from None


def _try_a_request(llm: Any) -> None:
    """Compute two tokens: some builds fail only then, such as at some attention in float32 on a
    CPU."""
    vllm = import_vllm("vllm.sampling_params")
    params = vllm.SamplingParams(max_tokens=2, ignore_eos=True, detokenize=False)
    llm.add_request("trial", {"prompt_token_ids": [0]}, params)
    while llm.has_unfinished_requests():
        llm.step()


@contextmanager
def _without_companions(path: str) -> Iterator[str]:
    """The model's files without our predictors and calibrations. In a folder without an index, vLLM
    0.32 takes every *.safetensors for weights."""
    folder = Path(path)
    others = {p for p in folder.glob("*.safetensors") if not p.name.startswith("model")}
    if not folder.is_dir() or not others:
        yield path
        return
    with TemporaryDirectory(prefix="dynts-batch-") as view:
        for file in folder.iterdir():
            if file not in others:
                (Path(view) / file.name).symlink_to(file.resolve())
        yield view


def _reason(error: Exception) -> str:
    """The error in one line. pydantic's errors have several, with all that it was given."""
    text = str(error)
    if errors := getattr(error, "errors", None):
        first = errors()[0]
        text = ": ".join([*map(str, first["loc"]), first["msg"]])
        if isinstance(first["input"], str | int | float):
            text += f", got {first['input']!r}"
    return f"{type(error).__name__}: {shorten(text, _MOST_CHARS)}"
