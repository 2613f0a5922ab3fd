"""Recognises text that repeats itself: one block of tokens, again and again, with nothing
between."""

from collections.abc import Sequence

#: Longest block that is looked for. A longer loop is paid for until the limit.
MAX_BLOCK_TOKENS = 512


def repeats(token_ids: Sequence[int], min_tokens: int, num_blocks: int) -> bool:
    """Whether `token_ids` ends in `num_blocks` equal blocks of `min_tokens` to MAX_BLOCK_TOKENS
    tokens.

    A shorter period counts if a multiple of it is such a block: "no no no ..." too is a loop.
    """
    length = len(token_ids)
    longest = min(MAX_BLOCK_TOKENS, length // num_blocks)
    if longest < min_tokens:
        return False
    tail = list(token_ids[-longest * num_blocks :])
    size, last = len(tail), tail[-1]
    for period in range(min_tokens, longest + 1):
        if tail[-1 - period] != last:  # nearly always; spares the slices
            continue
        start = size - period * num_blocks
        if tail[start : size - period] == tail[start + period :]:
            return True
    return False
