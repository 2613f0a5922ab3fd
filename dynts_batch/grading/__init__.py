"""Is this answer right? Extraction of the final answer and comparison with a reference.

Knows nothing about models, runs or files; needs no torch and no Ray.
"""

from dynts_batch.grading.extract import extract_answer, extract_choice, extract_reference
from dynts_batch.grading.grader import Grade, Grader

__all__ = ["Grade", "Grader", "extract_answer", "extract_choice", "extract_reference"]
