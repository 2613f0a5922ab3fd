"""Judging the rows of a finished run again: other rules, the same answers, nothing generated.

Every shard file is replaced whole, by its own rows with new judgements. While that lasts the files
do not all follow the same rules, and `regrade.json` stands in the run directory. Such a run can
neither be resumed nor sealed. Judging again mends it.

Knows nothing about Ray or models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dynts_batch.config import Config
from dynts_batch.config_file import override_config
from dynts_batch.data.readers.reference import reference_texts
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.schema import OWN_FIELDS, source_column_name
from dynts_batch.errors import ConfigError, RunDirError, choices_hint
from dynts_batch.grading import Grade, Grader
from dynts_batch.records import NOT_RUN
from dynts_batch.runner.fingerprint import grading_fingerprint


@dataclass
class Regraded:
    """Counts of rows."""

    num_rows: int = 0
    num_graded: int = 0
    """Rows with a judgement now."""
    num_correct: int = 0
    num_graded_before: int = 0
    num_correct_before: int = 0
    num_changed: int = 0
    """Rows whose judgement is another one now."""
    num_text_matters: int = 0
    """Rows that the other grading.text would judge otherwise."""


def regrade(path: str, overrides: Sequence[str]) -> tuple[Config, Regraded]:
    """Judge all rows of the run directory `path` by its settings and `overrides`, which are keys of
    `grading` and input.reference_column. The same call again mends one that broke off.

    Raises:
        ConfigError: an override is none of these keys, or a setting is wrong.
        RunDirError: `path` is no run directory, its run is not finished, or it cannot be written.
    """
    run_dir = RunDir(path)
    fingerprint = run_dir.fingerprint("grading", "input")
    if run_dir.read_manifest() is None:
        raise RunDirError(
            f"{path} is not finished: its rows are judged as they come. Finish it first"
        )
    config = override_config(run_dir.config(), _allowed(overrides))
    rules = grading_fingerprint(config.grading), config.input.reference_column
    is_changed = rules != (fingerprint["grading"], fingerprint["input"]["reference_column"])
    regraded = Regraded()
    with run_dir.claim(), Grader.from_config(config.grading) as grader:
        shards, checkpoints = sorted(run_dir.finished_shards()), run_dir.list_shards("checkpoints")
        for shard in shards[:1]:  # a wrong column is refused before the run counts as half graded
            _references(run_dir.read_shard(shard), config.input.reference_column)
        run_dir.begin_regrade(dataclasses.asdict(config.grading))
        for shard in shards:
            # Rows that were run again when that broke off are merged later, as they are.
            if shard in checkpoints and (again := run_dir.read_checkpoint(shard)) is not None:
                again = _judge(again, config, grader, is_changed=is_changed)
                run_dir.write_checkpoint(shard, again)
            table = run_dir.read_shard(shard)
            judged = _judge(table, config, grader, is_changed=is_changed)
            _count(regraded, table, judged)
            if judged != table:
                run_dir.replace_shard(shard, judged)
    fingerprint["grading"], fingerprint["input"]["reference_column"] = rules
    run_dir.end_regrade(config, fingerprint)
    return config, regraded


def _allowed(overrides: Sequence[str]) -> Sequence[str]:
    for override in overrides:
        key = override.partition("=")[0].strip()
        if not key.startswith("grading.") and key != "input.reference_column":
            choices = [f"grading.{name}" for name in ("kind", "benchmark", "text", "timeout_s")]
            hint = choices_hint(key, [*choices, "input.reference_column"])
            raise ConfigError(f"{key} does not belong to grading. {hint}")
    return overrides


def _judge(table: pa.Table, config: Config, grader: Grader, *, is_changed: bool) -> pa.Table:
    """`table` with the columns reference, extracted_answer, correct and text_matters made anew."""
    references = _references(table, config.input.reference_column)
    columns = table.select(["answer", "reasoning", "finish_reason"]).to_pylist()
    names = [field.name for field in dataclasses.fields(Grade)]
    judged: dict[str, list[Any]] = {"reference": references, **{name: [] for name in names}}
    for row, reference in zip(columns, references, strict=True):
        is_run = (
            row["finish_reason"] not in NOT_RUN
        )  # else nothing was answered, so nothing is judged
        grade = None if not is_run else grader.grade(row["answer"], reference, row["reasoning"])
        for name in names:
            judged[name].append(None if grade is None else getattr(grade, name))
    for name, values in judged.items():
        table = _with_column(table, name, values)
    return _without_first_verdicts(table) if is_changed else table


def _without_first_verdicts(table: pa.Table) -> pa.Table:
    """What first attempts answered is not stored, so other rules cannot judge them."""
    first = [
        None if value is None else {**value, "correct": None}
        for value in table["first_attempt"].to_pylist()
    ]
    return _with_column(table, "first_attempt", first)


def _with_column(table: pa.Table, name: str, values: Sequence[Any]) -> pa.Table:
    field = OWN_FIELDS[name]
    index = table.schema.get_field_index(name)
    return table.set_column(index, field, pa.array(values, field.type))


def _references(table: pa.Table, column: str | None) -> list[str | None]:
    if column is None:
        return table["reference"].to_pylist()
    name = source_column_name(table.schema, column)
    return [text for batch in table.select([name]).to_batches() for text in reference_texts(batch)]


def _count(regraded: Regraded, before: pa.Table, after: pa.Table) -> None:
    old, new = before["correct"].to_pylist(), after["correct"].to_pylist()
    regraded.num_rows += len(new)
    regraded.num_graded += len(new) - new.count(None)
    regraded.num_correct += new.count(True)
    regraded.num_graded_before += len(old) - old.count(None)
    regraded.num_correct_before += old.count(True)
    regraded.num_changed += sum(a is not b for a, b in zip(old, new, strict=True))
    regraded.num_text_matters += after["text_matters"].to_pylist().count(True)
