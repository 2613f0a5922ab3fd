#!/usr/bin/env bash
# lighteval 0.13.0, torch 2.13.0 on a CPU, Python 3.11.
#
# Guess: the tasks math:algebra to math:precalculus (MATH, maj@4) take the boxed answer out of each
# of four completions, take the commonest, and compare it with the boxed answer of the reference.
# Behaviour: whole texts are compared and counted. The tasks hand maj_at_n the normalizers that take
# the box (normalize_pred, normalize_gold); they are set on the metric and never read, since it
# knows but one, "normalize". So four right answers score 0, unless they are the reference's
# solution word for word. No two completions are alike, so nothing is voted on: the first counts.
# Nothing is said; what one sees is a model with 0% on MATH.
# Output seen:
#   boxed: 5 5 5 5 5
#   math:algebra: four right 0, the reference's words 1, those first and then three wrong 1
#   (the same for the other six)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q lighteval==0.13.0 torch==2.13.0
cd "$folder"
HOME=$folder HF_HUB_OFFLINE=1 venv/bin/python - > out 2> log <<'PYTHON'
from lighteval.metrics.normalizations import math_normalizer
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.tasks.math import TASKS_TABLE

solution = r"We have $x + 2 = 7$, so $x = 7 - 2 = \boxed{5}$."
line = {"problem": "Solve $x + 2 = 7$.", "solution": solution}
right = [
    r"Subtracting 2 gives $x = \boxed{5}$.",
    r"$x = 7 - 2$, so the answer is $\boxed{5}$.",
    r"The answer is $\boxed{5}$.",
    r"So $x$ is $\boxed{5}$.",
]
wrong = [text.replace("boxed{5}", "boxed{9}") for text in right]
print("boxed:", *(math_normalizer(text) for text in [solution, *right]))
for task in TASKS_TABLE:
    (metric,) = task.metrics
    scores = []
    for texts in [right, [solution] * 4, [solution, *wrong[:3]]]:
        doc = task.prompt_function(line, task.name)
        response = ModelResponse(text=[" " + text for text in texts])
        scores.extend(metric.compute_sample(doc=doc, model_response=response).values())
    print(f"{task.name}: four right {scores[0]}, the reference's words {scores[1]}", end="")
    print(f", those first and then three wrong {scores[2]}")
PYTHON
cat out
grep -q "^boxed: 5 5 5 5 5$" out
seen="four right 0, the reference's words 1, those first and then three wrong 1"
test "$(grep -c "^math:[a-z_]*: $seen$" out)" = 7
