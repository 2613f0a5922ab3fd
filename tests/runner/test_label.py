"""Labels as a job: every correct trace once, resumable like a run, and the same as without Ray."""

import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from fake_run import write_config, write_problems

from dynts_batch.config import ModelConfig
from dynts_batch.data.run_dir import RunDir
from dynts_batch.data.shard_table import Unit, units_of
from dynts_batch.engine.model.loader import load_model
from dynts_batch.engine.model.resolved import resolve_model
from dynts_batch.engine.prompt import PromptRenderer
from dynts_batch.errors import DyntsError, FingerprintError, InputError, RunDirError
from dynts_batch.runner.label import label
from dynts_batch.runner.reason import reason
from dynts_batch.runner.regrade import regrade
from dynts_batch.training import labeller as labeller_module
from dynts_batch.training.label_dir import LabelDir, LabelledTrace
from dynts_batch.training.labeller import Labeller
from dynts_batch.training.labels import label_trace
from dynts_batch.training.traces import Dropped, Trace, choose_units, read_traces

QUICKSTART = Path(__file__).parents[2] / "configs" / "quickstart.yaml"


@pytest.fixture(scope="module")
def labels(run_dir: Path) -> Path:
    """Those of the run, where they are written if no place is named."""
    assert label(str(run_dir), None, ["hidden_tokens=100"]) == 0
    return run_dir / "labels"


def test_labels_of_a_run_at_a_uri_with_options_are_below_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(run: RunDir) -> None:
        raise RunDirError("it is not there")

    opened: list[str] = []
    monkeypatch.setattr("dynts_batch.training.label_dir.LabelDir", opened.append)
    monkeypatch.setattr(RunDir, "config", fail)
    with pytest.raises(RunDirError, match="it is not there"):
        label("s3://b/r1/?region=us-east-1", None, [])
    assert opened == ["s3://b/r1/labels?region=us-east-1"]


def test_every_correct_trace_has_the_definitions_labels(run_dir: Path, labels: Path) -> None:
    label_dir = LabelDir(str(labels))
    assert not label_dir.read_manifest()["dropped"]
    found = [trace for shard in label_dir.finished_shards() for trace in label_dir.read(shard)]
    rows = [row for batch in RunDir(str(run_dir)).read_rows() for row in batch.to_pylist()]
    right = {row["request_id"] for row in rows if row["correct"]}
    assert [trace.request_id for trace in found] == sorted(right)
    model = load_model(resolve_model(ModelConfig()))
    by_unit = {(row["request_id"], row["sample_index"]): row for row in rows}
    run, renderer = RunDir(str(run_dir)), PromptRenderer(model.tokenizer)
    traces = {
        trace.request_id: trace
        for shard, units in choose_units(run, 1).items()
        for trace in read_traces(run, shard, units, renderer)
        if isinstance(trace, Trace)
    }
    for trace in found:
        row = by_unit[trace.request_id, trace.sample_index]
        assert len(trace.token_ids) == len(trace.labels) == row["reasoning_tokens"]
        expected, states = label_trace(model, traces[trace.request_id])
        np.testing.assert_allclose(trace.labels, expected.numpy(), atol=1e-6)
        assert len(trace.hidden_positions) == min(100, row["reasoning_tokens"])
        stored = torch.from_numpy(trace.hidden_states.astype(np.float32))
        torch.testing.assert_close(
            stored, states[torch.tensor(trace.hidden_positions).long()], atol=1e-2, rtol=1e-2
        )


def test_the_same_command_resumes_and_then_does_nothing(
    run_dir: Path, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(labels, tmp_path / "labels")
    first, *others = sorted(out.glob("shard-*.parquet"))
    content, times = first.read_bytes(), [path.stat().st_mtime_ns for path in others]
    first.unlink()
    assert label(str(run_dir), str(out), ["hidden_tokens=100"]) == 0
    assert "1 of 2 shards to do" in capsys.readouterr().err
    assert first.read_bytes() == content
    assert [path.stat().st_mtime_ns for path in others] == times
    assert label(str(run_dir), str(out), ["hidden_tokens=100"]) == 0
    assert "nothing to do" in capsys.readouterr().err
    with pytest.raises(FingerprintError, match="hidden_tokens"):
        label(str(run_dir), str(out), ["hidden_tokens=5"])


def test_labels_of_rows_that_were_judged_otherwise_are_not_gone_on_with(
    run_dir: Path, labels: Path, tmp_path: Path
) -> None:
    """The job said that there was nothing to do, and wrong traces trained the predictor."""
    judged = shutil.copytree(run_dir, tmp_path / "run")
    shutil.copytree(labels, judged / "labels", dirs_exist_ok=True)
    regrade(str(judged), ["grading.kind=exact"])
    with pytest.raises(FingerprintError, match=r"judged_by.*exact"):
        label(str(judged), None, ["hidden_tokens=100"])


def test_labels_are_not_gone_on_with_when_other_rows_are_right(
    run_dir: Path, labels: Path, tmp_path: Path
) -> None:
    """Rows that were run again (run.retry_failed) in a shard with labels had none for ever."""
    again = shutil.copytree(run_dir, tmp_path / "run")
    shutil.copytree(labels, again / "labels", dirs_exist_ok=True)
    rows = RunDir(str(again)).read_shard(0)
    column, field = rows.schema.get_field_index("correct"), rows.schema.field("correct")
    wrong = pa.array([False] * len(rows), field.type)
    RunDir(str(again)).replace_shard(0, rows.set_column(column, field, wrong))
    with pytest.raises(FingerprintError, match="rows"):
        label(str(again), None, ["hidden_tokens=100"])


@pytest.mark.long
@pytest.mark.timeout(
    1200
)  # five starts of a process with torch, each a minute where all else is busy
@pytest.mark.parametrize("num_deaths", [1, 4])
def test_labels_of_a_killed_worker_equal_those_of_an_undisturbed_one(
    num_deaths: int,
    run_dir: Path,
    labels: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray starts it again up to three times;
    after that the same command goes on from what is stored."""
    out, deaths = tmp_path / "labels", tmp_path / "deaths"
    files = sorted(labels.glob("shard-*.parquet"))
    last = int(files[-1].stem.removeprefix("shard-"))

    class Mortal(Labeller):
        """Is killed with the labels of its last shard computed and not stored,
        as often as is wanted."""

        def run_shard(self, shard: int, units: Sequence[Unit]) -> int:
            self._shard = shard
            return super().run_shard(shard, units)

        def _label(self, trace: Trace) -> LabelledTrace:
            labelled = super()._label(trace)
            so_far = deaths.read_bytes() if deaths.exists() else b""
            if self._shard == last and len(so_far) < num_deaths:
                deaths.write_bytes(so_far + b"x")
                os.kill(os.getpid(), signal.SIGKILL)
            return labelled

    monkeypatch.setattr(labeller_module, "Labeller", Mortal)
    if num_deaths > 3:
        with pytest.raises(DyntsError, match="a worker died 4 times"):
            label(str(run_dir), str(out), ["hidden_tokens=100"])
        stored = {path: path.stat().st_mtime_ns for path in out.glob("shard-*.parquet")}
        assert len(stored) == len(files) - 1
    assert label(str(run_dir), str(out), ["hidden_tokens=100"]) == 0
    assert deaths.read_bytes() == b"x" * num_deaths
    for path in files:
        assert (out / path.name).read_bytes() == path.read_bytes()
    if num_deaths > 3:  # what was stored is not done again
        assert {path: path.stat().st_mtime_ns for path in stored} == stored


def test_a_question_gives_its_first_correct_samples_that_stopped_and_no_others(
    cluster: str, tmp_path: Path
) -> None:
    """On the fake engine, which gets some samples wrong and never stops thinking in others."""
    problems = write_problems(tmp_path / "problems.jsonl", 12)
    config = write_config(tmp_path, problems, sampling={"max_new_tokens": 20, "num_samples": 3})
    assert reason(str(config), []) == 0
    run = RunDir(str(tmp_path / "run"))
    rows = [row for batch in run.read_rows() for row in batch.to_pylist()]
    for count in (1, 2, 3):
        expected = {}
        for row in rows:
            if row["correct"] and row["finish_reason"] == "stop":
                expected.setdefault(row["request_id"], []).append(row["sample_index"])
        chosen = [unit for units in choose_units(run, count).values() for unit in units]
        assert chosen == [(name, i) for name, indices in expected.items() for i in indices[:count]]
    assert len(chosen) < len(rows)


def test_a_word_written_in_two_tokens_is_labelled_and_dropped_only_where_the_ids_are_not_known(
    run_dir: Path, tmp_path: Path
) -> None:
    """Where the tokenizer writes it in one, text gives other tokens than the model wrote: labels
    would belong to those. Rows of a run from before completion_token_ids have nothing but text."""
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    run, renderer = (
        RunDir(str(copy)),
        PromptRenderer(load_model(resolve_model(ModelConfig())).tokenizer),
    )
    table = run.read_shard(0)
    units = units_of(table)
    usual = list(read_traces(run, 0, units, renderer))
    rows = table.to_pylist()
    for row in rows:
        token_ids, at = row["completion_token_ids"], row["reasoning_tokens"] // 2
        while len(letters := list(renderer.token_text(token_ids[at]))) < 2:
            at += 1
        spelled = [token for letter in letters for token in renderer.encode(letter)]
        row["completion_token_ids"] = [*token_ids[:at], *spelled, *token_ids[at + 1 :]]
        for count in ("reasoning_tokens", "completion_tokens"):
            row[count] += len(spelled) - 1
    run.commit_shard(0, pa.Table.from_pylist(rows, table.schema), units)
    found = list(read_traces(run, 0, units, renderer))
    assert [trace.token_ids for trace in found] == [
        renderer.encode(row["prompt"]) + row["completion_token_ids"][:-1] for row in rows
    ]
    assert [len(trace.thinking_token_ids) for trace in found] == [
        row["reasoning_tokens"] for row in rows
    ]
    older = run.read_shard(0).drop_columns(["completion_token_ids"])
    pq.write_table(older, copy / "rows" / "shard-00000.parquet")
    dropped = Dropped("its text has other tokens than were generated")
    assert list(read_traces(run, 0, units, renderer)) == [dropped] * len(rows)
    pq.write_table(
        table.drop_columns(["completion_token_ids"]), copy / "rows" / "shard-00000.parquet"
    )
    assert list(read_traces(run, 0, units, renderer)) == usual


def test_a_trace_whose_thinking_ends_twice_is_dropped(run_dir: Path, tmp_path: Path) -> None:
    """The answer's text does not tell: the tag may be a special token, which no text holds."""
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    run, renderer = (
        RunDir(str(copy)),
        PromptRenderer(load_model(resolve_model(ModelConfig())).tokenizer),
    )
    table = run.read_shard(0)
    rows = table.to_pylist()
    for row in rows:
        row["completion_token_ids"][-2:-2] = renderer.encode("</think>")
        row["completion_tokens"] += 1
    run.commit_shard(0, pa.Table.from_pylist(rows, table.schema), units_of(table))
    found = list(read_traces(run, 0, units_of(table), renderer))
    assert found == [Dropped("more than one end of thinking")] * len(rows)


def test_a_stated_answer_begins_with_the_sentence_in_which_it_stands_last(
    run_dir: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_dir, copy)
    run = RunDir(str(copy))
    renderer = PromptRenderer(load_model(resolve_model(ModelConfig())).tokenizer)
    table = run.read_shard(0)
    row = table.to_pylist()[0]
    words = renderer.text(row["completion_token_ids"]).split()
    word = next(w for w in words if len(w) > 1 and w.isalpha())

    def read(text: str, answer: str) -> Trace | Dropped:
        token_ids = [*renderer.encode(text), 0]
        row.update(completion_token_ids=token_ids, completion_tokens=len(token_ids))
        row.update(reasoning=None, reasoning_tokens=0, extracted_answer="7")
        changed = pa.Table.from_pylist([row], table.schema)
        run.commit_shard(0, changed, units_of(changed))
        return next(read_traces(run, 0, units_of(changed), renderer, answer))

    for thinking, answer in [
        (f"{word} 12\n", f"{word} 7 {word}"),
        (f"7 {word} 7 . 12 . ", f"{word} 7 . {word}"),
    ]:
        trace = read(thinking + answer, "stated")
        assert isinstance(trace, Trace)
        assert trace.thinking_token_ids + trace.answer_token_ids == row["completion_token_ids"][:-1]
        assert renderer.text(trace.thinking_token_ids).strip() == thinking.strip()
        assert renderer.text(trace.answer_token_ids).strip() == answer.strip()
    assert read(f"{word} 7", "stated") == Dropped("nothing stands before its answer")
    assert read(f"{word} 12", "stated") == Dropped("its text does not hold the answer as graded")
    assert "answer=stated" in read(f"{word} 7", "tags").reason
    with pytest.raises(DyntsError, match=r"cannot read answer: .*tags.*stated"):
        label(str(run_dir), str(tmp_path / "labels"), ["answer=guessed"])


def test_an_unfinished_run_and_one_without_a_correct_trace_are_refused(
    run_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(RunDirError):
        label(str(tmp_path), None, [])
    manifest = run_dir / "manifest.json"
    content = manifest.read_text()
    manifest.unlink()
    try:
        with pytest.raises(RunDirError, match="must be a finished run"):
            label(str(run_dir), str(tmp_path / "a"), [])
    finally:
        manifest.write_text(content)
    wrong = tmp_path / "wrong"
    overrides = [
        *("policy.name=window", "policy.budget=120", "input.limit=1", "sampling.max_new_tokens=5"),
        *(f"run.dir={wrong}", "workers.max=1", "memory.max_seqs=2"),
    ]
    assert reason(str(QUICKSTART), overrides) == 0
    with pytest.raises(InputError, match="at least one correct trace"):
        label(str(wrong), None, [])


@pytest.mark.long
def test_traces_of_rounded_weights_are_labelled_by_the_models_own(
    run_dir: Path, tmp_path: Path
) -> None:
    """Also where nothing multiplies in 8 bits."""
    rounded = Path(shutil.copytree(run_dir, tmp_path / "run"))
    config = (rounded / "config.yaml").read_text()
    (rounded / "config.yaml").write_text(config.replace("weights: null", "weights: int8"))
    labels = []
    for run in (run_dir, rounded):
        out = LabelDir(str(tmp_path / f"labels-{len(labels)}"))
        assert label(str(run), out.path, ["hidden_tokens=0"]) == 0
        labels.append(
            [trace.labels for shard in out.finished_shards() for trace in out.read(shard)]
        )
    for own, found in zip(*labels, strict=True):
        np.testing.assert_array_equal(own, found)
