"""Laws of judging again: only judgements change, no row is lost,
and a crash in the middle is mended by doing it again."""

import pyarrow as pa
import pytest
from fake_run import make_config
from local_run import finish_run

from dynts_batch.config_file import to_yaml
from dynts_batch.data.export import export
from dynts_batch.data.run_dir import RunDir
from dynts_batch.errors import ConfigError, FingerprintError, RunDirError
from dynts_batch.report.totals import add_up
from dynts_batch.runner.prepared_run import prepare
from dynts_batch.runner.regrade import regrade
from dynts_batch.training.traces import choose_units

JUDGEMENTS = ["reference", "extracted_answer", "correct", "text_matters"]

GRADER = """
def even(answer, reference):
    return None if answer is None else int(answer[7:-1]) % 2 == 0
"""


@pytest.fixture
def run_dir(tmp_path, monkeypatch) -> RunDir:
    (tmp_path / "parity.py").write_text(GRADER)
    monkeypatch.chdir(tmp_path)
    return finish_run(make_config(tmp_path, special={3: ""}))


def _rows(run_dir: RunDir) -> pa.Table:
    return pa.Table.from_batches(list(run_dir.read_rows()))


def test_only_the_judgements_change_and_the_counts_tell(run_dir):
    before = _rows(run_dir)
    config, counts = regrade(run_dir.path, ["grading.kind=parity:even"])
    after = _rows(run_dir)
    assert after.drop_columns(JUDGEMENTS).equals(before.drop_columns(JUDGEMENTS))
    assert after.schema.equals(before.schema, check_metadata=True)
    answers, correct = after["answer"].to_pylist(), after["correct"].to_pylist()
    assert correct == [None if a is None else int(a[7:-1]) % 2 == 0 for a in answers]
    assert (counts.num_rows, counts.num_correct) == (23, correct.count(True))
    assert counts.num_graded == 23 - correct.count(None)
    old = before["correct"].to_pylist()
    assert counts.num_changed == sum(a is not b for a, b in zip(old, correct, strict=True)) > 0
    assert config.grading.kind == run_dir.config().grading.kind == "parity:even"


def test_an_error_row_stays_unjudged_and_listed(run_dir):
    errors = list(run_dir.read_errors())
    assert len(errors) == 1
    regrade(run_dir.path, ["grading.kind=parity:even"])
    assert list(run_dir.read_errors()) == errors
    assert run_dir.failed_units()


def test_the_same_again_changes_nothing_on_disk(run_dir):
    regrade(run_dir.path, ["grading.kind=parity:even"])
    times = {shard: info.mtime_ns for shard, info in run_dir.list_shards("rows").items()}
    _, counts = regrade(run_dir.path, [])
    assert counts.num_changed == 0
    assert {s: info.mtime_ns for s, info in run_dir.list_shards("rows").items()} == times


def test_the_run_is_still_its_own_under_the_new_rules_and_foreign_under_the_old(tmp_path, run_dir):
    old = run_dir.config()
    config, _ = regrade(run_dir.path, ["grading.kind=parity:even"])
    assert prepare(config, is_local=True).shards_to_do == ()
    assert run_dir.read_manifest() is not None
    with pytest.raises(FingerprintError, match=r"grading.kind: 'parity:even' there, 'exact' now"):
        prepare(old, is_local=True)


def test_a_reference_may_come_from_another_column(run_dir):
    _, counts = regrade(run_dir.path, ["input.reference_column=id"])
    table = _rows(run_dir)
    assert table["reference"].to_pylist() == table["id"].to_pylist()
    assert counts.num_correct == 0
    assert run_dir.fingerprint()["input"]["reference_column"] == "id"
    with pytest.raises(ConfigError, match=r"'ids' is not a column .* Did you mean id\?"):
        regrade(run_dir.path, ["input.reference_column=ids"])


@pytest.mark.parametrize("dies_after", range(7))
def test_a_crash_in_the_middle_is_noticed_and_mended_by_doing_it_again(
    run_dir, monkeypatch, dies_after
):
    """Four shards that change, then config.yaml, fingerprint.json and the end of regrade.json:
    it dies before each of them."""
    whole = before = _rows(run_dir)
    writes = 0

    def write_or_die(real):
        def wrapped(self, name, *args):
            nonlocal writes
            if name.startswith(("rows/", "config", "fingerprint", "regrade")):
                writes += 1
                if writes == dies_after + 2:  # the first write is that of regrade.json
                    raise KeyboardInterrupt
            return real(self, name, *args)

        return wrapped

    with monkeypatch.context() as patch:
        storage = type(run_dir._storage)
        patch.setattr(storage, "write", write_or_die(storage.write))
        patch.setattr(storage, "delete", write_or_die(storage.delete))
        with pytest.raises(KeyboardInterrupt):
            regrade(run_dir.path, ["grading.kind=parity:even"])
    assert run_dir.is_regrading()
    half = _rows(run_dir)
    assert half.drop_columns(JUDGEMENTS).equals(whole.drop_columns(JUDGEMENTS))
    for use in (
        lambda: prepare(run_dir.config(), is_local=True),
        lambda: export(run_dir, "out", "jsonl", file_bytes=1 << 20),
        lambda: choose_units(run_dir, 1),
    ):
        with pytest.raises(RunDirError, match=r"Run `dynts-batch grade` on it again"):
            use()
    config, _ = regrade(run_dir.path, ["grading.kind=parity:even"])
    assert not run_dir.is_regrading()
    prepare(config, is_local=True)
    correct = _rows(run_dir)["correct"].to_pylist()
    assert correct.count(None) == before["answer"].null_count
    regrade(run_dir.path, ["grading.kind=exact"])
    assert _rows(run_dir).equals(before)


@pytest.mark.parametrize("rules", ["grading.kind=parity:even", "grading.timeout_s=7"])
def test_rows_of_an_interrupted_retry_are_judged_too_and_none_is_lost(run_dir, rules):
    """Under the second rules no finished shard changes."""
    for shard in run_dir.finished_shards():
        rows = run_dir.read_shard(shard)
        column = rows.schema.get_field_index("correct")
        others = pa.array([None if x is None else not x for x in rows["correct"].to_pylist()])
        checkpoint = rows.set_column(column, rows.schema.field("correct"), others)
        assert checkpoint != rows
        run_dir.write_checkpoint(shard, checkpoint)
    regrade(run_dir.path, [rules])
    for shard in run_dir.finished_shards():
        assert run_dir.read_checkpoint(shard) == run_dir.read_shard(shard)


def test_an_unfinished_run_is_refused(tmp_path):
    run = prepare(make_config(tmp_path), is_local=True)
    with pytest.raises(RunDirError, match=r"is not finished"):
        regrade(run.run_dir.path, [])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("policy.budget=3", r"policy.budget does not belong to grading"),
        ("grading.kind=llm", r"grading.kind must be one of math, exact, none, or module:function"),
        ("grading.kind=no_module:f", r"grading.kind 'no_module:f' cannot be loaded"),
        ("input.reference_column=nope", r"input.reference_column 'nope' is not a column"),
        ("grading.kinds=math", r"unknown config key grading.kinds. Did you mean kind\?"),
    ],
)
def test_a_wrong_setting_is_named_and_nothing_is_touched(run_dir, override, message):
    before = to_yaml(run_dir.config())
    with pytest.raises(ConfigError, match=message):
        regrade(run_dir.path, [override])
    assert not run_dir.is_regrading()
    assert to_yaml(run_dir.config()) == before


def test_the_reading_of_unclosed_thinking_can_be_changed_afterwards(run_dir):
    table = run_dir.read_shard(0)
    rows = table.to_pylist()
    rows[0] |= {"answer": None, "reasoning": f"so \\boxed{{{rows[0]['reference']}}}, or"}
    run_dir.replace_shard(0, pa.Table.from_pylist(rows, table.schema))
    _, strict = regrade(run_dir.path, [])
    config, whole = regrade(run_dir.path, ["grading.text=completion"])
    assert (strict.num_text_matters, whole.num_text_matters) == (1, 1)
    assert whole.num_correct == strict.num_correct + 1
    assert config.grading.text == run_dir.config().grading.text == "completion"
    assert run_dir.fingerprint()["grading"]["text"] == "completion"


def test_first_attempts_whose_answers_are_gone_are_judged_by_no_other_rules(tmp_path, monkeypatch):
    """Under a grader to which everything is right, all second attempts had gained a right
    answer."""
    (tmp_path / "kind.py").write_text("def right(answer, reference):\n    return True\n")
    monkeypatch.chdir(tmp_path)
    groups = {"sampling": {"max_new_tokens": 40}, "policy": {"retry_budget": 60}}
    path = str(tmp_path / "again")
    run = finish_run(make_config(tmp_path, 60, run={"dir": path, "shard_rows": 20}, **groups))
    again = [row for row in _rows(run).to_pylist() if row["first_attempt"]]
    assert {row["first_attempt"]["correct"] for row in again} == {False}
    regrade(path, ["grading.timeout_s=7"])  # the same rules
    assert add_up(run).endings.retries.num_right_before == 0
    regrade(path, ["grading.kind=kind:right"])
    retries = add_up(run).endings.retries
    assert retries.num_right == len(again) > 0
    assert (retries.num_rows, retries.num_right_before) == (len(again), None)
    unknown = [row["first_attempt"] for row in _rows(run).to_pylist() if row["first_attempt"]]
    assert unknown == [row["first_attempt"] | {"correct": None} for row in again]
