"""SepLLM: separators stay, since they summarise their segments."""

from dataclasses import dataclass

import torch

from dynts_batch.kvcache.policies import register
from dynts_batch.kvcache.policies.baselines.streaming import Streaming
from dynts_batch.kvcache.view import Slots

SEPARATORS = frozenset(".,;:?!\n\t")


@register("sepllm")
@dataclass(frozen=True)
class SepLLM(Streaming):
    """Keeps separator tokens, the first `num_sink_tokens` and the window (Chen et al. 2024, arXiv
    2412.12094).

    A separator's text consists of `. , ; : ? !`, newlines, tabs and spaces, but not of spaces
    alone. If there are too many separators, the newest stay. If there are too few, the newest other
    tokens fill the room.
    """

    requires = ("token_id",)

    def score(self, slots: Slots) -> torch.Tensor:
        positions = slots.positions.float()
        token_ids, index = slots.column("token_id").long().unique(return_inverse=True)
        flags = [is_separator(slots.token_text(token_id)) for token_id in token_ids.tolist()]
        is_sep = torch.tensor(flags, device=positions.device)[index]
        # Any separator outranks every other token. Within each kind the newer wins.
        return positions + is_sep * slots.seq_len[:, None, None, None]


def is_separator(text: str) -> bool:
    return bool(text.strip(" ")) and set(text.replace(" ", "")) <= SEPARATORS
