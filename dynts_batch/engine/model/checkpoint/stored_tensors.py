"""The tensors of a checkpoint's safetensors files, read when they are asked for.

safetensors itself maps a whole file at once. Its pages then stay in memory as long as any tensor of
it lives, beside what has become of all the others.
"""

import json
import mmap
from math import prod
from pathlib import Path
from typing import Any

import torch
from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME, cached_file

from dynts_batch.engine.model.files import ModelFiles

#: By the names in a file's header. Checkpoints with other types are quantised.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class StoredTensor:
    """A tensor of a file. What `[...]` returns is mapped on its own, so its pages leave memory with
    it."""

    def __init__(self, file: Path, dtype: torch.dtype, shape: list[int], start: int) -> None:
        """`start`: offset of the first byte in the file."""
        self._file, self._dtype, self._shape, self._start = file, dtype, shape, start

    def __getitem__(self, index: Any) -> torch.Tensor:
        count = prod(self._shape)
        if not count:
            return torch.empty(self._shape, dtype=self._dtype)[index]
        skipped = self._start % mmap.ALLOCATIONGRANULARITY
        num_bytes = skipped + count * self._dtype.itemsize
        with self._file.open("rb") as opened:
            # torch wants memory that could be written to. A write would stay in memory.
            pages = mmap.mmap(
                opened.fileno(), num_bytes, access=mmap.ACCESS_COPY, offset=self._start - skipped
            )
        flat = torch.frombuffer(pages, dtype=self._dtype, count=count, offset=skipped)
        return flat.view(self._shape)[index]


def stored_tensors(files: ModelFiles) -> dict[str, StoredTensor] | None:
    """All tensors of a model by their names; None if it is not in plain safetensors files."""
    found: dict[str, StoredTensor] = {}
    for file in _weight_files(files):
        with file.open("rb") as opened:
            num_bytes = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(num_bytes))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            if entry["dtype"] not in DTYPES:
                return None
            start = 8 + num_bytes + entry["data_offsets"][0]
            found[name] = StoredTensor(file, DTYPES[entry["dtype"]], entry["shape"], start)
    return found or None


def _weight_files(files: ModelFiles) -> list[Path]:
    """The local safetensors files, those that transformers would load."""
    if files.gguf is not None:
        return []

    def find(name: str) -> Path | None:
        path = cached_file(
            files.path, name, revision=files.revision, _raise_exceptions_for_missing_entries=False
        )
        return None if path is None else Path(path)

    if (whole := find(SAFE_WEIGHTS_NAME)) is not None:
        return [whole]
    if (index := find(SAFE_WEIGHTS_INDEX_NAME)) is None:
        return []
    names = set(json.loads(index.read_text())["weight_map"].values())
    parts = [find(name) for name in sorted(names)]
    return [part for part in parts if part is not None]
