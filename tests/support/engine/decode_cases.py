"""Ragged caches, and attention over them written out, for the fused decode kernels."""

import torch

from dynts_batch.kvcache.probs import Options, additive_mask, attention_probs

NUM_KV_HEADS = 3


def random_cache(head_dim: int, group: int, *, per_head: bool) -> dict[str, torch.Tensor]:
    """Lanes of 70 slots, of which 1 to 70 are live; the others hold what must not be read."""
    torch.manual_seed(head_dim + group)
    rows, capacity = 5, 70
    last_slots = torch.tensor([0, 1, 16, 37, 69])
    stored = torch.rand(rows, NUM_KV_HEADS if per_head else 1, 200).argsort(-1)[..., :capacity]
    keys, values = torch.randn(2, rows, NUM_KV_HEADS, capacity, head_dim).unbind()
    dead = torch.arange(capacity) > last_slots[:, None]
    keys[dead[:, None].expand(-1, NUM_KV_HEADS, -1)] = torch.nan
    values[dead[:, None].expand(-1, NUM_KV_HEADS, -1)] = torch.nan
    newest = last_slots[:, None, None].expand(-1, stored.shape[1], 1)
    return {
        "query": torch.randn(rows, NUM_KV_HEADS * group, 1, head_dim) * 3,
        "keys": keys,
        "values": values,
        "last_slots": last_slots,
        "positions": torch.full((rows,), 200),
        # As in the arena, the newest token stands at its own position.
        "stored_positions": stored.sort(-1).values.scatter(-1, newest, 200).int(),
    }


def written_out(cache: dict[str, torch.Tensor], options: Options) -> torch.Tensor:
    visible = torch.arange(cache["keys"].shape[2]) <= cache["last_slots"][:, None, None, None]
    if options.sliding_window is not None:
        oldest = (cache["positions"] - options.sliding_window)[:, None, None, None]
        visible = visible & (cache["stored_positions"][:, :, None] > oldest)
    mask = additive_mask(visible, torch.float32)
    probs = attention_probs(cache["query"], cache["keys"].nan_to_num(), mask, options)
    output = torch.einsum("bkgts,bksd->bkgtd", probs, cache["values"].nan_to_num())
    return output.reshape(cache["query"].shape)
