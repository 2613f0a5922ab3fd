"""Problem sets as Parquet: the shipped one, and fresh ones of any seed and size."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dynts_batch.lab.problems import problem_set

#: Seed and size of the set that comes with the package, `problems.parquet` beside this file.
SHIPPED_SEED, SHIPPED_SIZE = 2601, 200


def problem_table(seed: int, num_problems: int) -> pa.Table:
    """Columns problem_id, difficulty, question and solution."""
    return pa.Table.from_pylist(
        [
            {
                "problem_id": f"lab-{seed}-{index:05d}",
                "difficulty": problem.difficulty,
                "question": problem.question,
                "solution": str(problem.answer),
            }
            for index, problem in enumerate(problem_set(seed, num_problems))
        ]
    )


def write_problems(path: Path, seed: int, num_problems: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(problem_table(seed, num_problems), path)
