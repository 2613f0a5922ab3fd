"""How many tokens of each segment of a trace stay, by ThinKV's schedule (arXiv 2510.01290).

Plain Python on the sizes of one sequence's segments, oldest first. Which tokens stay is decided
elsewhere. Knows nothing of slots or positions.
"""

from collections.abc import Sequence

from dynts_batch.kvcache.policies.thinkv.thoughts import EXECUTION, REASONING, TRANSITION

#: Sizes that a segment steps down to. With fewer tokens than the last size, traces loop for ever.
SCHEDULE = (64, 32, 16, 8, 4)
#: Types by how much is lost with them, the least first.
LEAST_IMPORTANT_FIRST = (TRANSITION, EXECUTION, REASONING)


def step_down(size: int) -> int:
    """The next size of the schedule. A segment at the last size stays as it is."""
    return next((smaller for smaller in SCHEDULE if smaller < size), size)


def anneal(sizes: Sequence[int], num_steps: Sequence[int]) -> list[int]:
    """Sizes after each segment has stepped down `num_steps` times."""
    annealed = list(sizes)
    for index, steps in enumerate(num_steps):
        for _ in range(min(steps, len(SCHEDULE))):
            annealed[index] = step_down(annealed[index])
    return annealed


def make_room(sizes: Sequence[int], types: Sequence[int], excess: int) -> list[int]:
    """Sizes after at least `excess` tokens have gone, or all of them.

    Of the least important type, the oldest segment above the schedule's last size steps down, again
    and again. Once all are at that size, segments go entirely, in the same order.
    """
    left, total = list(sizes), sum(sizes)
    target = total - excess
    order = [
        index for kind in LEAST_IMPORTANT_FIRST for index, own in enumerate(types) if own == kind
    ]
    for floor in (SCHEDULE[-1], 0):
        for index in order:
            while total > target and left[index] > floor:
                smaller = step_down(left[index]) if floor else 0
                total -= left[index] - smaller
                left[index] = smaller
    return left
