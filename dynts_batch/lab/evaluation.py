"""How many fresh problems a trained model solves when it writes freely.

Teacher forcing cannot give this figure.
"""

from collections import Counter
from pathlib import Path

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.lab.problems import problem_set
from dynts_batch.records import Request

#: Far from the seeds of the training batches and of the shipped problems.
FRESH_SEED = 10_007
MAX_NEW_TOKENS = 1600


def greedy_accuracy(model_dir: Path, num_problems: int = 200) -> dict[str, tuple[int, int]]:
    """(right, asked) by difficulty: full cache, greedy, on problems of a seed of their own."""
    engine = Engine.load(
        ModelConfig(name=str(model_dir)),
        PolicyConfig(name="full"),
        SamplingConfig(temperature=0.0, max_new_tokens=MAX_NEW_TOKENS),
        MemoryConfig(max_seqs=64),
    )
    problems = problem_set(FRESH_SEED, num_problems)
    requests = (
        Request(str(index), prompt=problem.question) for index, problem in enumerate(problems)
    )
    right: Counter[str] = Counter()
    for completion in engine.generate(requests):
        problem = problems[int(completion.request_id)]
        right[problem.difficulty] += f"\\boxed{{{problem.answer}}}" in (completion.answer or "")
    asked = Counter(problem.difficulty for problem in problems)
    return {difficulty: (right[difficulty], asked[difficulty]) for difficulty in asked}
