"""The table of what users get wrong, and what each of them sees:
a refusal in one line, an error row, or a right run.

No case ends in a traceback, and none that can be refused comes as far as Ray.
"""

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fake_run import make_config, write_config
from local_run import finish_run
from safetensors.torch import save_file

from dynts_batch.config_file import load_config
from dynts_batch.runner import reason as reason_module
from dynts_batch.runner.reason import reason

GOOD = {"id": "a", "question": "how many?", "answer": "1"}
MESSAGES_OF_A_LINE = [{"role": "user", "content": "hi"}]
OPENAI = {"format": "openai", "id_column": None, "prompt_column": None, "reference_column": None}


def _jsonl(*rows, name="data.jsonl"):
    def make(folder: Path) -> Path:
        path = folder / name
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        path.write_bytes(b"\n".join(lines))
        return path

    return make


def _parquet(name="data.parquet", **columns):
    def make(folder: Path) -> Path:
        pq.write_table(pa.table(columns), folder / name)
        return folder / name

    return make


def _file(name, content):
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def _cut(make, share):
    def cut(folder: Path) -> Path:
        path = make(folder)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])
        return path

    return cut


def _folder(*makes):
    def make(folder: Path) -> Path:
        inner = folder / "inputs"
        inner.mkdir()
        for one in makes:
            one(inner)
        return inner

    return make


def _bad_utf8_parquet(folder: Path) -> Path:
    text = pa.array([b"fine", b"\xff\xfe"]).view(pa.string())
    pq.write_table(pa.table({"id": ["a", "b"], "question": text}), folder / "data.parquet")
    return folder / "data.parquet"


TABLE = _parquet(id=["a", "b"], question=["one", "two"], answer=["1", "2"])
TEXT = pa.string()
MESSAGES = pa.list_(pa.struct([("role", TEXT), ("content", TEXT)]))

#: What is wrong: (the file, changed keys of `input`), and the start of the one line that refuses
#: it.
REFUSED = {
    "truncated Parquet": ((_cut(TABLE, 0.7), {}), r"cannot read .*data\.parquet"),
    "Parquet cut to its magic": ((_cut(TABLE, 0.01), {}), r"cannot read .*data\.parquet"),
    "Parquet that is text": ((_file("data.parquet", b"id,question\n"), {}), "cannot read"),
    "empty Parquet file": ((_file("data.parquet", b""), {}), "cannot read"),
    "Parquet without rows": (
        (
            _parquet(id=pa.array([], TEXT), question=pa.array([], TEXT), answer=pa.array([], TEXT)),
            {},
        ),
        r".*data\.parquet holds no rows",
    ),
    "Parquet with a column twice": (
        (
            lambda folder: (
                pq.write_table(
                    pa.Table.from_arrays([pa.array(["a"])] * 3, ["id", "question", "id"]),
                    folder / "data.parquet",
                ),
                folder / "data.parquet",
            )[1],
            {},
        ),
        "column names of .* must be unique",
    ),
    "truncated Arrow": ((_file("data.arrow", b"ARROW1\x00\x00\x10"), {}), "cannot read"),
    "empty JSONL": ((_file("data.jsonl", b""), {}), r".*data\.jsonl holds no rows"),
    "JSONL of blank lines": ((_file("data.jsonl", b"\n \n\n"), {}), r".*data\.jsonl holds no rows"),
    "JSONL that is UTF-16": (
        (_file("data.jsonl", json.dumps(GOOD).encode("utf-16")), {}),
        ".*must hold JSON objects, got none: line 1: must be UTF-8, got byte 0xff",
    ),
    "empty CSV": ((_file("data.csv", b""), {}), ".*"),
    "CSV with a column twice": (
        (_file("data.csv", b"id,id,question\n1,2,x\n"), {}),
        ".*must start with a header of diff",
    ),
    "no such file": ((lambda folder: folder / "nothing.jsonl", {}), "input.path must be a file or"),
    "folder without files": ((_folder(), {}), "input.format cannot be told from"),
    "folder of other files": ((_folder(_file("readme.txt", b"hi")), {}), "input.format cannot be"),
    "folder of two formats": ((_folder(TABLE, _jsonl(GOOD)), {}), "input.format cannot be told"),
    "pattern that matches nothing": (
        (lambda folder: folder / "*.jsonl", {}),
        "input.path must match a file, got .*: none does",
    ),
    "no line that can be done": (
        (
            _jsonl(
                *(
                    {
                        "custom_id": f"{i}",
                        "body": {"messages": MESSAGES_OF_A_LINE, "temperature": 2},
                    }
                    for i in range(3)
                )
            ),
            OPENAI,
        ),
        ".*must hold a row that can be run, got 3 that cannot; each fails for the same reason:"
        r" line 1: body.temperature must be the run's sampling.temperature \(.*\), got 2",
    ),
    "no row with a prompt": (
        (_jsonl(GOOD | {"question": None}, GOOD | {"id": "b", "question": 3}), {}),
        ".*input.prompt_column 'question' .* must hold text|.*must hold a row that can be run, got"
        " 2",
    ),
    "lines that are no JSON": (
        (_file("data.jsonl", b"{'id': 1}\n{'id': 2}\n"), {}),
        ".*must hold JSON objects, got none: line 1: must be JSON",
    ),
    "array cut short": (
        (_file("data.json", b'[{"id": "a", "question": "x"},\n{"id'), {}),
        ".*must be JSON, and is not from line 2 on",
    ),
    "unknown suffix": ((_file("data.xlsx", b"PK"), {}), "input.format cannot be told from"),
    "unknown scheme": ((lambda folder: "ftq://host/data.jsonl", {}), "cannot open input.path"),
    "credentials in the URI": (
        (lambda folder: "s3://me:hush@bucket/data.jsonl", {}),
        "input.path must not hold credentials",
    ),
    "mixed schemas": (
        (
            _folder(
                _parquet("a.parquet", id=["a"], question=["x"], extra=["text"]),
                _parquet("b.parquet", id=["b"], question=["y"], extra=[[1, 2]]),
            ),
            {},
        ),
        r".*b\.parquet does not fit the files before it",
    ),
    "no such prompt column": (
        (TABLE, {"prompt_column": "questio"}),
        "input.prompt_column 'questio'",
    ),
    "no such id column": ((TABLE, {"id_column": "uid"}), "input.id_column 'uid' is not a column"),
    "no such reference column": (
        (TABLE, {"reference_column": "solution"}),
        "input.reference_column 'solution' is not a column",
    ),
    "prompt column of numbers": (
        (_parquet(id=["a"], question=[3], answer=["1"]), {}),
        "input.prompt_column 'question' of .* must hold text, got int64",
    ),
    "prompt and messages": (
        (TABLE, {"messages_column": "chat"}),
        "input.prompt_column and input.messages_column exclude each other",
    ),
    "neither prompt nor messages": ((TABLE, {"prompt_column": None}), "input.prompt_column or"),
    "messages column of numbers": (
        (TABLE, {"prompt_column": None, "messages_column": "n"}),
        "input.messages_column 'n' is not a column",
    ),
    "duplicate ids": ((_jsonl(GOOD, GOOD), {}), r"input.id_column 'id' must be unique, got 'a' in"),
    "ids that are the same as text": (
        (_jsonl(GOOD | {"id": 7}, GOOD | {"id": "7"}), {}),
        "input.id_column 'id' must be unique, got '7' in line 1 and line 2|.*",
    ),
    "id column of floats": (
        (_parquet(id=[1.0, 2.0], question=["x", "y"], answer=["1", "1"]), {}),
        "input.id_column 'id' of .* must hold text or integers, got double",
    ),
    "null id": (
        (_jsonl(GOOD, GOOD | {"id": None}), {}),
        "input.id_column 'id' must hold non-empty",
    ),
    "empty id": ((_jsonl(GOOD | {"id": ""}), {}), "input.id_column 'id' must hold non-empty"),
    "thousands of keys": (
        (_jsonl({"id": "a", "question": "x"} | {f"k{i}": i for i in range(2000)}), {}),
        ".*must have at most 1000 different keys",
    ),
}

#: What is wrong: (the file, changed keys of `input`), and the error of each bad row.
ERROR_ROWS = {
    "null prompt": (
        _jsonl(GOOD, GOOD | {"id": "b", "question": None}),
        {},
        "BadRowError",
        "got null",
    ),
    "empty prompt": (
        _jsonl(GOOD, GOOD | {"id": "b", "question": " \n"}),
        {},
        "BadRowError",
        "text",
    ),
    "prompt that is a list": (
        _jsonl(GOOD, GOOD | {"id": "b", "question": "x"}, GOOD | {"id": "c", "question": ""}),
        {},
        "BadRowError",
        "must hold text",
    ),
    "broken JSON line": (
        _jsonl(GOOD, b'{"id": "b", "quest'),
        {},
        "BadRowError",
        "line 2: must be JSON",
    ),
    "line of another kind": (_jsonl(GOOD, b"[1, 2]"), {}, "BadRowError", "must be a JSON object"),
    "wrong UTF-8 in JSONL": (_jsonl(GOOD, b'{"id": "b\xff"}'), {}, "BadRowError", "must be UTF-8"),
    "half a surrogate": (
        _jsonl(GOOD, b'{"id": "b", "question": "\\ud800"}'),
        {},
        "BadRowError",
        "half of a surrogate pair",
    ),
    "wrong UTF-8 in Parquet": (
        _bad_utf8_parquet,
        {"reference_column": None},
        "BadRowError",
        "text must be UTF-8",
    ),
    "10 MB prompt": (
        _jsonl(GOOD, GOOD | {"id": "b", "question": "word " * 2_000_000}),
        {},
        "PromptTooLongError",
        "tokens",
    ),
    "messages without content": (
        _parquet(
            id=["a", "b"],
            chat=pa.array([[{"role": "user", "content": "hi"}], [{"role": "user"}]], MESSAGES),
        ),
        {"prompt_column": None, "messages_column": "chat", "reference_column": None},
        "BadRowError",
        "must hold a list of",
    ),
    "no messages at all": (
        _parquet(id=["a", "b"], chat=pa.array([[{"role": "user", "content": "hi"}], []], MESSAGES)),
        {"prompt_column": None, "messages_column": "chat", "reference_column": None},
        "BadRowError",
        "must hold a list of",
    ),
    "OpenAI line with tools": (
        _jsonl(
            {"custom_id": "a", "body": {"messages": [{"role": "user", "content": "hi"}]}},
            {"custom_id": "b", "body": {"messages": [], "tools": [{"type": "function"}]}},
        ),
        {"format": "openai", "id_column": None, "prompt_column": None, "reference_column": None},
        "BadRowError",
        "body.tools is not supported",
    ),
}

HOSTILE_IDS = [
    "🙂",
    "../../etc/passwd",
    "a/b\\c",
    "x\u0000y",
    "..",
    "'; rm -rf /",
    "\u202eid",
    "é" * 5000,
]

#: What looks wrong and is not.
FINE = {
    "folder of JSONL": (
        _folder(_jsonl(GOOD), _jsonl(GOOD | {"id": "b"}, name="more.jsonl")),
        {},
    ),
    "parts and tool calls": (
        _jsonl(
            {
                "id": "a",
                "chat": [
                    {"role": "user", "content": [{"type": "text", "text": "hi"}]},
                    {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]},
                    {"role": "tool", "content": "4"},
                ],
            }
        ),
        {"prompt_column": None, "messages_column": "chat", "reference_column": None},
    ),
    "emoji, paths and control characters as ids": (
        _jsonl(*(GOOD | {"id": id_} for id_ in HOSTILE_IDS)),
        {},
    ),
    "byte order mark, CRLF and blank lines": (
        _file("data.jsonl", b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n"),
        {},
    ),
    "files that lack a column": (
        _folder(
            _parquet("a.parquet", id=["a"], question=["x"]),
            _parquet("b.parquet", id=["b"], question=["y"], answer=["1"]),
        ),
        {},
    ),
    "references of mixed types": (_jsonl(GOOD, {"id": "b", "question": "x", "answer": [1]}), {}),
    "columns named as ours": (
        _jsonl(GOOD | {"finish_reason": "mine", "prompt": 3, "worker_id": None}),
        {},
    ),
}


def _config(folder: Path, make, input_keys) -> str:
    keys = {"path": str(make(folder)), **input_keys}
    return str(write_config(folder, folder, input=keys))


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_line(case, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reason_module, "drive", lambda *args: pytest.fail("Ray was reached"))
    (make, input_keys), message = REFUSED[case]
    assert reason(_config(tmp_path, make, input_keys), []) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.match(f"error: {message}", line), line
    assert len(line) < 600
    assert "hush" not in line
    assert not (tmp_path / "run" / "rows").exists()


@pytest.mark.parametrize("case", ERROR_ROWS)
def test_it_becomes_an_error_row_and_the_others_run(case, tmp_path):
    make, input_keys, error_type, message = ERROR_ROWS[case]
    run_dir = finish_run(load_config(_config(tmp_path, make, input_keys)))
    rows = [row for batch in run_dir.read_rows() for row in batch.to_pylist()]
    failed = [row for row in rows if row["finish_reason"] == "error"]
    assert len(failed) == 1
    assert failed[0]["error_type"] == error_type
    assert message in failed[0]["error_message"]
    assert len(failed[0]["error_message"]) < 600
    assert len(rows) > len(failed)


@pytest.mark.parametrize("case", FINE)
def test_it_runs(case, tmp_path):
    make, input_keys = FINE[case]
    run_dir = finish_run(load_config(_config(tmp_path, make, input_keys)))
    rows = [row for batch in run_dir.read_rows() for row in batch.to_pylist()]
    assert not [row for row in rows if row["finish_reason"] == "error"]
    # Nothing was written but what a run directory has, whatever the ids are.
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names <= {
        "config.yaml",
        "fingerprint.json",
        "manifest.json",
        "rows",
        "workers",
        "tmp",
        "checkpoints",
    }
    assert {path.name for path in tmp_path.iterdir()} <= {
        "run",
        "config.yaml",
        "data.jsonl",
        "inputs",
    }


# ---- models -------------------------------------------------------------------------------------


def _model(tiny_model_dirs, folder: Path) -> Path:
    return Path(shutil.copytree(tiny_model_dirs["qwen2"], folder / "model"))


def _empty_weights(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"")


def _cut_weights(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def _garbled_weights(model: Path) -> None:
    (model / "model.safetensors").write_bytes(b"\xff" * 4096)


def _pickled_weights(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")


def _no_tokenizer(model: Path) -> None:
    for path in model.glob("tokenizer*"):
        path.unlink()


def _foreign_tokenizer(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 7}))


def _broken_config(model: Path) -> None:
    (model / "config.json").write_text("{")


def _no_config(model: Path) -> None:
    (model / "config.json").unlink()


def _foreign_code(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "evil.Config"}}
    (model / "config.json").write_text(json.dumps(config))
    (model / "evil.py").write_text("raise SystemExit('it ran')")


MODELS = {
    "empty weights": _empty_weights,
    "weights cut short": _cut_weights,
    "weights that are garbage": _garbled_weights,
    "weights that are a pickle": _pickled_weights,
    "no tokenizer": _no_tokenizer,
    "a tokenizer of another model": _foreign_tokenizer,
    "a configuration that is no JSON": _broken_config,
    "no configuration": _no_config,
    "code of its own, not asked for": _foreign_code,
}


@pytest.mark.parametrize("case", MODELS)
def test_a_broken_model_is_refused_in_one_line(
    case, tmp_path, capsys, monkeypatch, tiny_model_dirs
):
    monkeypatch.setattr(reason_module, "drive", lambda *args: pytest.fail("Ray was reached"))
    model = _model(tiny_model_dirs, tmp_path)
    MODELS[case](model)
    config = _config(tmp_path, TABLE, {})
    capsys.readouterr()
    assert reason(config, [f"model.name={model}", "policy.budget=64"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: model.name")


def test_a_predictor_of_another_model_is_refused_in_one_line(
    tmp_path, capsys, monkeypatch, tiny_model_dirs
):
    import torch

    monkeypatch.setattr(reason_module, "drive", lambda *args: pytest.fail("Ray was reached"))
    model = _model(tiny_model_dirs, tmp_path)
    save_file({"weight": torch.zeros(1)}, tmp_path / "predictor.safetensors")
    config = _config(tmp_path, TABLE, {})
    capsys.readouterr()
    keys = [
        "policy.name=dynts",
        "policy.budget=64",
        f"model.predictor={tmp_path}/predictor.safetensors",
    ]
    assert reason(config, [f"model.name={model}", *keys]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: model.predictor")


# ---- run directories ----------------------------------------------------------------------------


def _cut_short(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[:100])


def _of_other_columns(shard: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), shard)


@pytest.mark.parametrize("folder", ["rows", "checkpoints"])
@pytest.mark.parametrize("damage", [_cut_short, _of_other_columns])
def test_a_damaged_file_of_a_run_is_refused_in_one_line(
    folder, damage, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(reason_module, "drive", lambda run, *args: finish_run(run.config))
    finish_run(make_config(tmp_path, 23))
    shard = tmp_path / "run" / "rows" / "shard-00001.parquet"
    if folder == "checkpoints":
        (tmp_path / "run" / "checkpoints").mkdir(exist_ok=True)
        shard = shard.rename(tmp_path / "run" / "checkpoints" / shard.name)
    damage(shard)
    assert reason(str(tmp_path / "config.yaml"), []) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.match(
        r"error: .*shard-00001\.parquet is damaged: .* Delete it to compute it again", line
    )


def test_a_checkpoint_of_another_shard_is_refused_in_one_line(tmp_path, capsys, monkeypatch):
    """Its shard was never complete, and was leased again for ever."""
    monkeypatch.setattr(reason_module, "drive", lambda run, *args: finish_run(run.config))
    finish_run(make_config(tmp_path, 23))
    rows, checkpoints = tmp_path / "run" / "rows", tmp_path / "run" / "checkpoints"
    (rows / "shard-00001.parquet").unlink()
    checkpoints.mkdir(exist_ok=True)
    shutil.copy(rows / "shard-00002.parquet", checkpoints / "shard-00001.parquet")
    assert reason(str(tmp_path / "config.yaml"), []) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: what is stored of shard 1 must be its own rows, got ('p10', 0)")


@pytest.mark.parametrize("change", ["cut", "rewritten", "removed"])
def test_input_that_changes_under_a_run_ends_it_before_a_row_is_made_of_it(
    change, tmp_path, capsys, monkeypatch
):
    """It became rows of other problems, or error rows, and the run was sealed with them."""
    problems = tmp_path / "problems.jsonl"
    make_config(tmp_path, 23)

    def drive(run, *args):
        if change == "cut":
            problems.write_bytes(problems.read_bytes()[:-100])
        elif change == "rewritten":
            problems.write_text(problems.read_text().replace("number", "NUMBER"))
        else:
            problems.unlink()
        list(run.source.rows(0, 5))

    monkeypatch.setattr(reason_module, "drive", drive)
    assert reason(str(tmp_path / "config.yaml"), []) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.match(r"error: (cannot read )?.*problems\.jsonl", line)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_finished_run_on_a_read_only_disk_is_found_finished(tmp_path, capsys, monkeypatch):
    finish_run(make_config(tmp_path, 23))
    assert reason(str(tmp_path / "config.yaml"), []) == 0  # seals it

    def refuse(self, name, data):
        pytest.fail(f"{name} was written")

    monkeypatch.setattr("dynts_batch.data.files.storage.Storage.write", refuse)
    assert reason(str(tmp_path / "config.yaml"), []) == 0
    assert "nothing to do" in capsys.readouterr().err


def test_the_table_has_at_least_forty_rows():
    assert len(REFUSED) + len(ERROR_ROWS) + len(FINE) + len(MODELS) >= 50
