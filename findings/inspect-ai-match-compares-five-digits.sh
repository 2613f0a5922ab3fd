#!/usr/bin/env bash
# inspect-ai 0.3.285, Python 3.11.
#
# Guess: match(numeric=True), the scorer of GSM8K, AIME and sums, takes an answer for right if it is
# the same number as the target; what it normalizes is how a number is written (commas, signs of
# currencies).
# Behaviour: both are first rounded to five significant digits. So in every number from 100,000 on
# the last digits are not looked at: a product that is off by one, another date and another id are
# right. Whole numbers are no exception, there is no option for it, and the log shows the rounded
# answer only.
# Output seen:
#   12345 * 6789 = 83810205, said 83810415: C, answer in the log 8.381e+07
#   date 20240131, said 20240229: C, answer in the log 2.024e+07
#   sum 100001, said 100,000: C, answer in the log 1e+05
#   small 10001, said 10002: I, answer in the log 10002
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q inspect-ai==0.3.285
cd "$folder"
HOME=$folder venv/bin/python - > out <<'PYTHON'
import asyncio

from inspect_ai.model import ModelName, ModelOutput
from inspect_ai.scorer import Target, match
from inspect_ai.solver import TaskState

scorer = match(numeric=True)
for question, right, wrong in [
    ("12345 * 6789 =", "83810205", "83810415"),
    ("date", "20240131", "20240229"),
    ("sum", "100001", "100,000"),
    ("small", "10001", "10002"),
]:
    output = ModelOutput.from_content("none/none", f"The answer is {wrong}")
    model = ModelName("none/none")
    state = TaskState(model, sample_id=1, epoch=1, input=question, messages=[], output=output)
    score = asyncio.run(scorer(state, Target(right)))
    print(f"{question} {right}, said {wrong}: {score.value}, answer in the log {score.answer}")
PYTHON
cat out
grep -q "said 83810415: C, answer in the log 8.381e+07$" out
grep -q "said 20240229: C," out
grep -q "said 100,000: C," out
grep -q "said 10002: I," out
