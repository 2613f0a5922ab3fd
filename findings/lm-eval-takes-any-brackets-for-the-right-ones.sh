#!/usr/bin/env bash
# lm-eval 0.4.13, Python 3.11.
#
# Guess: bigbench_dyck_languages_generate_until asks which brackets close a word, so its exact match
# compares brackets. "ignore_punctuation: true", which all BIG-bench tasks of this kind inherit,
# is about a full stop at the end.
# Behaviour: every sign of string.punctuation goes, wherever it stands, from answer and target. Of
# brackets only the spaces between them are left: any brackets are right if their number is. In the
# other tasks, and in mgsm_*, which says so too, -5 is 5 and 2.5 is 25. It is not in the task's name
# or in its result; the configuration of the template has it.
# Output seen:
#   dyck_languages: target '] ) }', said '( ( (': exact_match 1.0
#   dyck_languages: target '] ) }', said '] )': exact_match 0.0
#   arithmetic: target '-25', said '2.5': exact_match 1.0
#   mgsm_en_cot_en: target '25', said 'The answer is -2.5.': exact_match 1.0
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q lm-eval==0.4.13 datasets==5.2.0
cd "$folder"
HOME=$folder HF_HUB_OFFLINE=1 venv/bin/python - > out 2> log <<'PYTHON'
import json
from pathlib import Path

import lm_eval
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager

TASKS = Path(lm_eval.__file__).parent / "tasks"
MANAGER = TaskManager()


class Says(LM):
    """A model that gives one answer."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def generate_until(self, requests, disable_tqdm=False):
        return [self.answer for _ in requests]

    def loglikelihood(self, requests, disable_tqdm=False):
        raise NotImplementedError

    loglikelihood_rolling = loglikelihood


def score(file, row, target, answer):
    """The task as it is shipped, on a row of our own in place of its data set."""
    Path("rows.jsonl").write_text(json.dumps(row) + "\n")
    name = file.split("/")[-1]
    task = {
        "include": str(TASKS / f"{file}.yaml"),
        "task": name,
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(Path("rows.jsonl").resolve())}},
        "test_split": "test",
        "training_split": None,
        "num_fewshot": 0,
    }
    Path("task.yaml").write_text(json.dumps(task))
    results = lm_eval.simple_evaluate(
        model=Says(answer), tasks=["task.yaml"], task_manager=MANAGER, bootstrap_iters=0
    )
    scores = results["results"][name]
    seen = max(score for key, score in scores.items() if key.startswith("exact_match,"))
    print(f"{name}: target {target!r}, said {answer!r}: exact_match {float(seen)}")


bigbench = "bigbench/generate_until/"
row = {"inputs": "{ ( [", "targets": ["] ) }"]}
score(bigbench + "dyck_languages", row, "] ) }", "( ( (")
score(bigbench + "dyck_languages", row, "] ) }", "] )")
row = {"inputs": "5 - 30 =", "targets": ["-25"]}
score(bigbench + "arithmetic", row, "-25", "2.5")
row = {"question": "How many?", "answer": None, "answer_number": 25, "equation_solution": None}
score("mgsm/en_cot/mgsm_en_cot_en", row, "25", "The answer is -2.5.")
PYTHON
cat out
grep -q "target '\] ) }', said '( ( (': exact_match 1.0$" out
grep -q "target '\] ) }', said '\] )': exact_match 0.0$" out
grep -q "target '-25', said '2.5': exact_match 1.0$" out
grep -q "said 'The answer is -2.5.': exact_match 1.0$" out
