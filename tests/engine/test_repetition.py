import json
import random

import pytest

from dynts_batch.engine.repetition import MAX_BLOCK_TOKENS, repeats


def by_definition(token_ids, min_tokens, num_blocks):
    """Slowly, in plain words: some block of the right size stands `num_blocks` times at the end."""
    for size in range(min_tokens, MAX_BLOCK_TOKENS + 1):
        blocks = [
            token_ids[len(token_ids) - size * (i + 1) : len(token_ids) - size * i]
            for i in range(num_blocks)
        ]
        if len(token_ids) >= size * num_blocks and all(block == blocks[0] for block in blocks):
            return True
    return False


@pytest.mark.parametrize("seed", range(40))
def test_a_loop_is_what_the_definition_says(seed):
    dice = random.Random(seed)
    token_ids = [dice.randrange(3) for _ in range(dice.randrange(60))]
    token_ids += [dice.randrange(3) for _ in range(dice.randrange(1, 9))] * dice.randrange(1, 12)
    token_ids = token_ids[: len(token_ids) - dice.randrange(3)]
    for min_tokens, num_blocks in ((1, 2), (2, 3), (5, 2), (4, 4)):
        expected = by_definition(token_ids, min_tokens, num_blocks)
        assert repeats(token_ids, min_tokens, num_blocks) == expected, (min_tokens, num_blocks)


def test_a_short_period_is_a_loop_once_its_multiple_is_long_enough():
    assert repeats([7] * 256, 64, 4)
    assert not repeats([7] * 255, 64, 4)
    assert repeats([1, 2, 3] * 88, 64, 4)  # 66 x 4


def test_a_loop_that_was_left_is_none():
    assert not repeats([*[1, 2] * 300, 3], 64, 4)


def test_tables_and_code_that_people_write_are_no_loops():
    """Runs of equal short lines: 20 rows of zeros, a matrix, brackets, an import block. As
    characters, which repeat more than tokens do."""
    texts = [
        "| 0 | 0 | 0 | 0 |\n" * 14,
        json.dumps([[0] * 6] * 12),
        "}\n" * 60,
        "=" * 80 + "\n" + "-" * 80,
        "".join(f"x_{i} = x_{i - 1} + 1\n" for i in range(200)),
    ]
    assert not any(repeats([*text.encode()], 64, 4) for text in texts)
