"""Moves the slots that stay to the front of their lanes. Knows nothing about their contents.

Axes as in kvcache/__init__.py. On a CPU, C code does it in place.
"""

import torch

from dynts_batch.kvcache import native

SOURCE = "slots.c"


def ascending(stays: torch.Tensor, longest: int) -> torch.Tensor:
    """The slots that stay, ascending, int64 [..., K] with K = `longest`, of bool [..., C].

    A row with fewer than K is filled up with the first of its other slots.
    """
    if not in_c(stays):
        # A stable sort on "goes" leaves each group in order.
        return (~stays).to(torch.uint8).argsort(dim=-1, stable=True)[..., :longest]
    stays = stays.contiguous()
    kept = torch.empty(*stays.shape[:-1], longest, dtype=torch.int64)
    num_rows, num_slots = stays.shape[:-1].numel(), stays.shape[-1]
    native.function(SOURCE, "ascending", "pplll")(
        kept.data_ptr(), stays.data_ptr(), num_rows, num_slots, longest
    )
    return kept


def compact(
    stored: torch.Tensor, lanes: torch.Tensor, kept: torch.Tensor, retained_len: torch.Tensor
) -> None:
    """Move the slots `kept` [R, H or 1, K] of `lanes` [R] to the front of their lanes.

    `stored` is contiguous, [parts, lanes, H, C, ...]. `kept` is ascending, and of each row its
    first `retained_len` [R] slots count. What lies behind them afterwards is anything that was in
    the lane.
    """
    if not in_c(stored):
        heads = torch.arange(stored.shape[2], device=stored.device)[:, None]
        # Indexing copies before the assignment, so the overlap of source and target is harmless.
        stored[:, lanes, :, : kept.shape[-1]] = stored[:, lanes[:, None, None], heads, kept]
        return
    kept = kept.contiguous()
    slot_bytes = stored.stride(3) * stored.itemsize
    native.function(SOURCE, "compact", "pppp" "lllllllll")(
        stored.data_ptr(), lanes.data_ptr(), kept.data_ptr(), retained_len.data_ptr(), *kept.shape,
        *stored.shape[:4], slot_bytes, torch.get_num_threads(),
    )  # fmt: skip


def in_c(tensor: torch.Tensor) -> bool:
    """Whether the C code for slots runs where `tensor` is."""
    return native.can_run(SOURCE, torch.float32, tensor.device)
