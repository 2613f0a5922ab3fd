"""A model's files: where they are, and which model they are. Loads nothing."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.utils import cached_file

from dynts_batch.config import ModelConfig
from dynts_batch.errors import ConfigError
from dynts_batch.kvcache.model_id import ModelId

#: Of a file of weights, this many pieces of this size are read, spread evenly: a 70B model is identified in a second,
#: and training moves every piece.
NUM_PIECES, PIECE_BYTES = 64, 2**16


def model_path(name: str) -> str:
    """Where the model's files are: the package's own for "embedded", else what Hugging Face understands."""
    return str(files("dynts_batch.lab") / "reasoner") if name == "embedded" else name


def pinned(config: ModelConfig) -> ModelConfig:
    """With the commit that the revision of a model on the hub stands for now: a branch moves on.

    Raises: ConfigError where there is no such model.
    """
    if Path(model_path(config.name)).is_dir():
        return config
    try:  # transformers' own lookup; its configurations no longer say which commit they are of
        path = cached_file(config.name, "config.json", revision=config.revision)
    except (OSError, ValueError) as error:
        raise no_such_model(config.name, error) from None
    assert path is not None
    return replace(config, revision=_commit(Path(path).parent) or config.revision)


def no_such_model(name: str, error: Exception) -> ConfigError:
    reason = str(error).partition("\n")[0]
    return ConfigError(
        f"model.name must be 'embedded', the path of a Hugging Face model or a hub id, got {name!r}: {reason}"
    )


def model_id(config: ModelConfig) -> ModelId:
    """Which model it is, as far as is known without loading it; of one on the hub, `pinned`.

    Raises: ConfigError where weights are missing or damaged.
    """
    folder = Path(model_path(config.name))
    return ModelId(config.name, _commit(folder) or config.revision, _weights_sha256(folder))


def _commit(folder: Path) -> str | None:
    """Of a folder in the hub's cache: .../snapshots/COMMIT."""
    return folder.name if folder.parent.name == "snapshots" else None


def _weights_sha256(folder: Path) -> str | None:
    """Of names, sizes and samples of the weights in a local folder; None for a model on the hub, whose commit says it."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    paths = sorted(folder.glob("model*.safetensors"))
    if not paths:
        raise ConfigError(
            f"model.name must hold its weights as model*.safetensors, got {str(folder)!r} without one"
        )
    for path in paths:
        try:
            with safe_open(path, framework="pt"):  # reads the header, which knows the file's size
                pass
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"model.name: {str(path)!r} is damaged: {error}") from None
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        for piece in _pieces(path):
            digest.update(piece)
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    if size <= NUM_PIECES * PIECE_BYTES:
        yield path.read_bytes()
        return
    with path.open("rb") as file:
        for index in range(NUM_PIECES):  # the first holds the header, the last the file's end
            file.seek((size - PIECE_BYTES) * index // (NUM_PIECES - 1))
            yield file.read(PIECE_BYTES)
