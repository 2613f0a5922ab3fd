"""A model's weights as files: whether they are whole, and which weights they are. Loads none."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError, safe_open

from dynts_batch.errors import ConfigError

#: This many pieces of this size are read of a file, spread evenly. A 70B model takes a second, and
#: training changes every piece.
NUM_PIECES, PIECE_BYTES = 64, 2**16


def weights_sha256(folder: Path) -> str:
    """Digest of names, sizes and samples of the weights in a local folder.

    Raises: ConfigError if there are none, or if they are damaged.
    """
    digest = hashlib.sha256()
    paths = sorted(folder.glob("model*.safetensors"))
    if not paths:
        raise ConfigError(
            f"model.name must hold its weights as model*.safetensors, got {str(folder)!r} without"
            " one"
        )
    for path in paths:
        try:
            with safe_open(path, framework="pt"):  # the header knows the file's size
                pass
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"model.name: {str(path)!r} is damaged: {error}") from None
        digest.update(f"{path.name} {path.stat().st_size}".encode())
        for piece in _pieces(path):
            digest.update(piece)
    return digest.hexdigest()


def gguf_sha256(file: Path) -> str:
    """Digest of name, size and samples of a GGUF file, which holds a whole model."""
    digest = hashlib.sha256(f"{file.name} {file.stat().st_size}".encode())
    for piece in _pieces(file):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    size = path.stat().st_size
    if size <= NUM_PIECES * PIECE_BYTES:
        yield path.read_bytes()
        return
    with path.open("rb") as file:
        for index in range(NUM_PIECES):  # the first piece holds the header, the last the file's end
            file.seek((size - PIECE_BYTES) * index // (NUM_PIECES - 1))
            yield file.read(PIECE_BYTES)
