"""The task: answers checked by an independent evaluation of the text,
traces that make memory matter."""

import re
import statistics
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from dynts_batch.lab.problem_file import SHIPPED_SEED, SHIPPED_SIZE, problem_table
from dynts_batch.lab.problems import MAX_VALUE, Problem, problem_set
from dynts_batch.lab.tokenizer import build_tokenizer

PROBLEMS = problem_set(seed=5, num_problems=120)
LAB = Path(__file__).parents[2] / "dynts_batch" / "lab"


def text(phrases: object) -> str:
    return "".join(phrase.text for phrase in phrases)  # type: ignore[attr-defined]


def solve(question: str) -> int:
    """Evaluate the question's text, knowing nothing of the generator."""
    match = re.fullmatch(r"Let (.*)\. What is (.*)\?", question)
    assert match is not None
    definitions, asked = match.groups()
    values: dict[str, int] = {}
    for definition in definitions.split(", "):
        name, expression = definition.split(" = ")
        values[name] = eval(expression, {}, values)
    return eval(asked, {}, values)


def test_the_answer_is_what_the_question_says() -> None:
    for problem in PROBLEMS:
        assert solve(problem.question) == problem.answer
        assert text(problem.conclusion()).endswith(f"\\boxed{{{problem.answer}}}.")
        assert all(0 <= value <= MAX_VALUE for value in problem.values.values())


def test_every_letter_is_an_ancestor_of_the_answer() -> None:
    for problem in PROBLEMS:
        needed = {problem.asked[0], problem.asked[2]}
        for step in reversed(problem.steps):
            assert step.name in needed, "a derived letter that nothing needs"
            needed |= {x for x in (step.left, step.right) if isinstance(x, str)}
        assert needed >= problem.values.keys()


def test_every_equation_in_a_trace_is_true() -> None:
    for problem in PROBLEMS:
        for a, op, b, c in re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", text(problem.reasoning())):
            assert int(a) + (1 if op == "+" else -1) * int(b) == int(c)


def test_digressions_are_most_of_a_trace_and_facts_are_needed_hundreds_of_tokens_later() -> None:
    tokenizer = build_tokenizer()
    lengths, shares, distances = [], [], []
    for problem in PROBLEMS:
        phrases = list(problem.reasoning())
        counts = [len(tokenizer.encode(phrase.text)) for phrase in phrases]
        aside = sum(n for n, phrase in zip(counts, phrases, strict=True) if phrase.aside)
        shares.append(aside / sum(counts))
        lengths.append(sum(counts) + len(tokenizer.encode(text(problem.conclusion()))))
        distances += fact_distances(problem, sum(counts))
    assert all(0.6 <= share <= 0.8 for share in shares)
    assert statistics.mean(lengths) >= 400
    assert max(lengths) >= 1000
    assert statistics.median(distances) >= 200


def fact_distances(problem: Problem, num_tokens: int) -> list[float]:
    """Tokens, on average, from the line that derives a letter to the line
    that uses it and to the recap."""
    lines = {step.name: index for index, step in enumerate(problem.steps)}
    uses = [
        (index, operand)
        for index, step in enumerate(problem.steps)
        for operand in (step.left, step.right)
        if operand in lines
    ]
    uses += [(len(problem.steps), name) for name in lines]
    return [(index - lines[name]) * num_tokens / len(problem.steps) for index, name in uses]


def test_the_tokenizer_encodes_any_text_and_tokens_of_parts_are_tokens_of_the_whole() -> None:
    tokenizer = build_tokenizer()
    for sample in (
        "naïve 東京 🎉 \x00\t\n",
        "x^2 + \\frac{1}{2} = 10^{10}",
        " 1234567 <think> </think>",
    ):
        assert tokenizer.decode(tokenizer.encode(sample)) == sample
    for problem in PROBLEMS[:20]:
        parts = [token for phrase in problem.reasoning() for token in tokenizer.encode(phrase.text)]
        assert parts == tokenizer.encode(text(problem.reasoning()))


def test_problem_sets_are_distinct_reproducible_and_differ_by_seed() -> None:
    questions = [problem.question for problem in PROBLEMS]
    assert len(set(questions)) == len(questions)
    assert questions == [problem.question for problem in problem_set(seed=5, num_problems=120)]
    assert not set(questions) & {
        problem.question for problem in problem_set(seed=6, num_problems=120)
    }


def test_the_shipped_problems_are_those_of_their_seed() -> None:
    assert pq.read_table(LAB / "problems.parquet").equals(problem_table(SHIPPED_SEED, SHIPPED_SIZE))


@pytest.mark.skipif(not (LAB / "reasoner").exists(), reason="the embedded model is not trained yet")
def test_the_shipped_tokenizer_is_the_built_one_and_all_files_are_small() -> None:
    from transformers import AutoTokenizer

    shipped, built = AutoTokenizer.from_pretrained(LAB / "reasoner"), build_tokenizer()
    assert shipped.get_vocab() == built.get_vocab()
    assert shipped.chat_template == built.chat_template
    assert sum(file.stat().st_size for file in LAB.rglob("*") if file.is_file()) <= 10 * 10**6
