"""Laws of every source, whatever its format: same rows, any order of reading, no row lost."""

import csv
import datetime
import decimal
import json
import os
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynts_batch.config import InputConfig
from dynts_batch.data.readers.reader import open_source
from dynts_batch.data.readers.source import Source
from dynts_batch.errors import InputError

NUM_ROWS = 700
IDS = [f"p{i}" for i in range(NUM_ROWS)]
PROMPTS = [f'What is {i} + {i % 7}?\nThink, "please". \N{GRINNING FACE}' for i in range(NUM_ROWS)]
FORMATS = [
    "parquet",
    "parquet_folder",
    "arrow_file",
    "arrow_stream",
    "arrow_folder",
    "jsonl",
    "csv",
]


def _write(path: Path, format_: str, ids: list, prompts: list, prompt_type=None) -> str:
    """The columns id and prompt as a data set of the given format; returns its path."""
    table = pa.table({"id": ids, "prompt": pa.array(prompts, prompt_type)})
    file = path / f"data.{format_.partition('_')[0]}"
    if format_ == "parquet":
        pq.write_table(table, file, row_group_size=150)
    elif format_ == "parquet_folder":
        (path / "folder" / "_temporary").mkdir(parents=True)
        (path / "folder" / "_temporary" / "part.parquet").write_bytes(b"not ready")
        half = table.num_rows // 2
        pq.write_table(table.slice(0, half), path / "folder" / "a.parquet", row_group_size=100)
        pq.write_table(table.slice(half), path / "folder" / "b.parquet")
        file = path / "folder"
    elif format_ == "arrow_file":
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=90)
    elif format_ == "arrow_stream":
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, max_chunksize=90)
    elif format_ == "arrow_folder":
        file = path / "saved"
        datasets.Dataset(table).save_to_disk(str(file), num_shards=min(3, table.num_rows))
    elif format_ == "jsonl":
        file.write_text("".join(f"{json.dumps(row)}\n" for row in table.to_pylist()))
    else:
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows([["id", "prompt"], *zip(ids, prompts, strict=True)])
    return str(file)


def _open(path: str | Path, **keys) -> Source:
    return open_source(InputConfig(path=str(path), **({"prompt_column": "prompt"} | keys)))


@pytest.fixture(scope="module", params=FORMATS)
def path(request, tmp_path_factory) -> str:
    return _write(tmp_path_factory.mktemp("source"), request.param, IDS, PROMPTS)


def test_rows_come_out_as_they_went_in_with_ids_from_a_column(path):
    source = _open(path, id_column="id", reference_column="id")
    source.validate()
    rows = list(source.rows(0, source.num_rows))
    assert [row.request_id for row in rows] == IDS
    assert [row.prompt for row in rows] == PROMPTS
    assert [row.reference for row in rows] == IDS
    assert [row.index for row in rows] == list(range(NUM_ROWS))
    columns = source.read(0, source.num_rows).columns
    assert columns.to_pylist()[3] == {"id": "p3", "prompt": PROMPTS[3]}
    assert not any(row.error for row in rows)


def test_hashed_ids_are_unique_and_the_same_in_every_format(path):
    source = _open(path)
    source.validate()
    ids = [row.request_id for row in source.rows(0, source.num_rows)]
    assert len(set(ids)) == NUM_ROWS
    assert ids[:2] == ["d334b7127c57f269635af3fc", "660151d2b5264d91bb5a7c91"]


def test_a_template_is_put_around_each_prompt_and_changes_neither_ids_nor_columns(path):
    bare = list(_open(path).rows(0, 9))
    template = "Question: {prompt}\nAgain: {prompt}\nEnd with \\boxed{} or {0} or {{prompt}}."
    rows = list(_open(path, prompt_template=template).rows(0, 9))
    for row, plain in zip(rows, bare, strict=True):
        text = plain.prompt
        assert row.prompt == (
            f"Question: {text}\nAgain: {text}\nEnd with \\boxed{{}} or {{0}} or {{{text}}}."
        )
        assert row.request_id == plain.request_id


def test_a_prompt_that_holds_the_placeholder_is_left_as_it_is(tmp_path):
    path = _write(tmp_path, "jsonl", ["a"], ["What does {prompt} mean?"])
    (row,) = _open(path, prompt_template="Q: {prompt}").rows(0, 1)
    assert row.prompt == "Q: What does {prompt} mean?"


def test_equal_prompts_have_different_ids(tmp_path):
    path = _write(tmp_path, "jsonl", ["a", "b"], ["same", "same"])
    first, second = _open(path).rows(0, 2)
    assert first.request_id != second.request_id


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, NUM_ROWS), st.integers(0, 120)), max_size=8))
def test_any_range_in_any_order_is_a_slice_of_the_whole(path, ranges):
    source = _open(path, id_column="id")
    for start, length in ranges:
        stop = min(start + length, NUM_ROWS)
        rows = [row.request_id for row in source.rows(start, stop)]
        assert rows == IDS[start:stop]


def test_a_reader_that_stops_early_disturbs_nothing(path):
    source = _open(path, id_column="id")
    assert next(source.rows(5, 300)).request_id == "p5"
    assert [row.request_id for row in source.rows(6, 9)] == IDS[6:9]


def test_limit_takes_the_first_rows(path):
    source = _open(path, id_column="id", limit=10)
    source.validate()
    assert source.num_rows == 10


def test_the_fingerprint_is_that_of_the_content_not_of_the_place(path, tmp_path):
    copy = tmp_path / Path(path).name
    os.system(f"cp -r {path} {copy}")
    assert _open(copy).fingerprint == _open(path).fingerprint


@pytest.mark.parametrize("format_", FORMATS)
def test_the_fingerprint_changes_with_one_letter(tmp_path, format_):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = _open(_write(tmp_path / "a", format_, ["1", "2"], ["x", "y"]))
    two = _open(_write(tmp_path / "b", format_, ["1", "2"], ["x", "z"]))
    assert one.fingerprint != two.fingerprint


@pytest.mark.parametrize("format_", FORMATS)
def test_duplicate_ids_are_refused_with_both_places(tmp_path, format_):
    path = _write(tmp_path, format_, ["a", "b", "c", "b"], ["w", "x", "y", "z"])
    places = {"jsonl": "line 2 and line 4", "csv": "line 3 and line 5"}
    expected = f"'b' in {places.get(format_, 'row 1 and row 3')} of "
    with pytest.raises(InputError, match=f"input.id_column 'id' must be unique, got {expected}"):
        _open(path, id_column="id").validate()


@pytest.mark.parametrize("format_", ["parquet", "arrow_stream", "jsonl", "csv"])
def test_a_row_without_prompt_is_an_error_row_and_the_rest_goes_on(tmp_path, format_):
    path = _write(tmp_path, format_, ["a", "b", "c"], ["one", "  ", "three"])
    source = _open(path, id_column="id")
    source.validate()
    one, two, three = source.rows(0, 3)
    assert (one.prompt, three.prompt) == ("one", "three")
    assert two.request_id == "b"
    assert two.prompt is None
    assert "input.prompt_column 'prompt' must hold text, got '  '" in str(two.error)
    assert source.read(0, 3).columns["id"].to_pylist() == ["a", "b", "c"]


@pytest.mark.parametrize("format_", FORMATS)
def test_a_missing_column_is_named_with_the_choices(tmp_path, format_):
    path = _write(tmp_path, format_, ["a", "b"], ["x", "y"])
    with pytest.raises(
        InputError, match=r"'promt' is not a column of .* Did you mean prompt\? Cho"
    ):
        _open(path, prompt_column="promt")


@pytest.mark.parametrize("format_", ["parquet", "arrow_file", "arrow_stream", "jsonl", "csv"])
def test_no_rows_and_no_bytes_are_refused(tmp_path, format_):
    path = Path(_write(tmp_path, format_, pa.array([], "string"), [], "string"))
    with pytest.raises(InputError, match="holds no rows"):
        _open(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"holds no rows|cannot read"):
        _open(path)


@pytest.mark.parametrize("format_", ["parquet", "arrow_file", "arrow_stream"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.99])
def test_a_truncated_file_is_refused_before_the_run(tmp_path, format_, share):
    path = Path(_write(tmp_path, format_, IDS, PROMPTS))
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(InputError, match="cannot read"):
        _open(path).validate()


def test_a_damaged_page_is_found_by_validate(tmp_path):
    path = Path(_write(tmp_path, "parquet", IDS, PROMPTS))
    data = bytearray(path.read_bytes())
    data[400:2000] = os.urandom(1600)
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot read"):
        _open(path, id_column="id").validate()


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.0, 2.0], "input.id_column 'id' .* must hold text or integers, got double"),
        (["a", None], "must hold non-empty text or integers, got None in row 1"),
        (["a", ""], "must hold non-empty text or integers, got '' in row 1"),
        ([True, False], "must hold text or integers, got bool"),
        ([1, 1], "must be unique, got '1' in row 0 and row 1"),
    ],
)
def test_an_id_column_that_cannot_identify_is_refused(tmp_path, ids, message):
    path = _write(tmp_path, "parquet", ids, ["x", "y"])
    with pytest.raises(InputError, match=message):
        _open(path, id_column="id").validate()


def test_hostile_ids_are_just_ids(tmp_path):
    ids = ["../../etc/passwd", "a/b", "\N{GRINNING FACE}", "a" * 10_000, " ", "CON"]
    source = _open(_write(tmp_path, "parquet", ids, ["x"] * 6), id_column="id")
    source.validate()
    assert [row.request_id for row in source.rows(0, 6)] == ids


def test_a_prompt_column_of_numbers_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"input.prompt_column 'prompt' .* hold text, got int64"):
        _open(_write(tmp_path, "parquet", ["a"], [1]))


def test_wrong_utf8_in_parquet_is_an_error_row(tmp_path):
    broken = pa.array([b"fine", b"\xff\xfe", b"good"]).view(pa.string())
    pq.write_table(pa.table({"prompt": broken}), tmp_path / "data.parquet")
    one, two, three = _open(tmp_path / "data.parquet").rows(0, 3)
    assert (one.prompt, two.prompt, three.prompt) == ("fine", None, "good")
    assert "row 1: text must be UTF-8" in str(two.error)


def test_files_of_one_folder_may_lack_columns_and_differ_in_width(tmp_path):
    pq.write_table(pa.table({"prompt": ["x"], "n": pa.array([1], "int32")}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": pa.array([2], "int64"), "m": ["z"]}), tmp_path / "b.parquet")
    source = _open(tmp_path)
    _, second = source.rows(0, 2)
    assert source.read(0, 2).columns.to_pylist() == [
        {"prompt": "x", "n": 1, "m": None},
        {"prompt": None, "n": 2, "m": "z"},
    ]
    assert second.error is not None


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_text_is_text_also_where_one_file_has_it_as_a_dictionary(tmp_path, order):
    """As pandas stores a category."""
    tables = [
        pa.table({"prompt": ["x"]}),
        pa.table({"prompt": pa.array(["y"]).dictionary_encode()}),
    ]
    for name, table in zip(order, tables, strict=True):
        pq.write_table(table, tmp_path / f"{name}.parquet")
    prompts = [row["prompt"] for row in _open(tmp_path).read(0, 2).columns.to_pylist()]
    assert sorted(prompts) == ["x", "y"]


DAY = datetime.datetime(9999, 1, 1)


@pytest.mark.parametrize(
    ("some", "others"),
    [
        (pa.array([0.5, None]), pa.array([2**53 + 1])),  # pandas has a missing id as a float
        (pa.array([decimal.Decimal("19.99")], pa.decimal128(5, 2)), pa.array([20])),
        (pa.array([1]), pa.array([2**63 + 5], pa.uint64())),
        (pa.array([DAY], pa.timestamp("ms")), pa.array([1], pa.timestamp("ns"))),
        (pa.array([[0.5]]), pa.array([[2**53 + 1]])),
    ],
)
@pytest.mark.parametrize("order", ["ab", "ba"])
@pytest.mark.parametrize("format_", ["parquet", "arrow"])
def test_a_value_that_the_type_of_all_files_does_not_hold_is_refused_before_the_run(
    tmp_path, some, others, order, format_
):
    """It stopped a run in the middle, whenever its shard was read, and for good."""
    for name, column in zip(order, (some, others), strict=True):
        table = pa.table({"prompt": ["x"] * len(column), "n": column})
        if format_ == "parquet":
            pq.write_table(table, tmp_path / f"{name}.parquet")
        else:
            with pa.ipc.new_file(tmp_path / f"{name}.arrow", table.schema) as writer:
                writer.write(table)
    with pytest.raises(InputError, match=r"column 'n' of .* which does not hold it .*one type"):
        _open(tmp_path)


def test_whole_numbers_and_floats_of_one_column_are_floats(tmp_path):
    pq.write_table(pa.table({"prompt": ["x"], "n": [0.5]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"prompt": ["y"], "n": [2**53]}), tmp_path / "b.parquet")
    assert _open(tmp_path).read(0, 2).columns["n"].to_pylist() == [0.5, 2.0**53]


def test_files_of_one_folder_with_other_types_are_refused_by_name(tmp_path):
    pq.write_table(pa.table({"prompt": ["x"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"prompt": [1]}), tmp_path / "b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet does not fit the files before it"):
        _open(tmp_path)


def test_a_data_set_with_splits_asks_for_one(tmp_path):
    train = datasets.Dataset.from_dict({"prompt": ["x"]})
    datasets.DatasetDict({"train": train, "test": train}).save_to_disk(str(tmp_path / "all"))
    with pytest.raises(InputError, match="with the splits train, test: append one"):
        _open(tmp_path / "all")
    assert _open(tmp_path / "all" / "test").num_rows == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("missing.parquet", "not found"), ("data.txt", "found none of them"), (".", "none of them")],
)
def test_a_path_that_is_no_data_set_is_refused(tmp_path, name, message):
    (tmp_path / "data.txt").write_text("hello")
    with pytest.raises(InputError, match=message):
        _open(tmp_path / name)


def test_an_unknown_scheme_is_refused():
    with pytest.raises(InputError, match=r"cannot open input.path 'foo://bucket/x.parquet'"):
        _open("foo://bucket/x.parquet")


# ---- messages ----------------------------------------------------------------------------------

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]


@pytest.mark.parametrize("as_text", [False, True])
def test_messages_may_be_lists_or_their_json_text(tmp_path, as_text):
    chats = [json.dumps(CHAT), json.dumps(CHAT[1:])] if as_text else [CHAT, CHAT[1:]]
    pq.write_table(pa.table({"chat": chats}), tmp_path / "data.parquet")
    source = _open(tmp_path / "data.parquet", prompt_column=None, messages_column="chat")
    first, second = source.rows(0, 2)
    assert (first.messages, second.messages) == (CHAT, CHAT[1:])
    assert first.request(1).messages == CHAT
    assert first.prompt is None


@pytest.mark.parametrize(
    "chat",
    [
        None,
        [],
        "hello",
        "[1]",
        '[{"role": "user"}]',
        [{"role": "user", "content": None}],
        "[" * 9999,
    ],
)
def test_messages_that_are_no_chat_are_an_error_row(tmp_path, chat):
    (tmp_path / "data.jsonl").write_text(f"{json.dumps({'chat': chat})}\n")
    (row,) = _open(tmp_path / "data.jsonl", prompt_column=None, messages_column="chat").rows(0, 1)
    assert "input.messages_column 'chat' must hold a list" in str(row.error)


def test_half_a_surrogate_hidden_in_json_text_is_an_error_row(tmp_path):
    chat = '[{"role": "user", "content": "\\ud83d"}]'
    pq.write_table(pa.table({"chat": [chat]}), tmp_path / "data.parquet")
    (row,) = _open(tmp_path / "data.parquet", prompt_column=None, messages_column="chat").rows(0, 1)
    assert row.error is not None


def test_a_reference_that_is_no_text_is_given_as_json(tmp_path):
    lines = [{"prompt": "x", "ref": 4}, {"prompt": "x", "ref": 0.5}, {"prompt": "x", "ref": None}]
    (tmp_path / "data.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    source = _open(tmp_path / "data.jsonl", reference_column="ref")
    assert [row.reference for row in source.rows(0, 3)] == ["4", "0.5", None]


def test_a_system_prompt_comes_before_prompts_and_before_chats_without_one(tmp_path):
    user, own = {"role": "user", "content": "2+2?"}, {"role": "system", "content": "Shout."}
    lines = [{"q": "2+2?", "chat": [user]}, {"q": "2+2?", "chat": [own, user]}]
    path = tmp_path / "data.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    ours = {"role": "system", "content": "Be brief."}
    for column, expected in (
        ("prompt_column", [[ours, user], [ours, user]]),
        ("messages_column", [[ours, user], [own, user]]),
    ):
        name = "q" if column == "prompt_column" else "chat"
        settings = {"path": str(path), column: name, "system_prompt": "Be brief."}
        rows = list(open_source(InputConfig(**settings)).rows(0, 2))
        assert [row.request(0).messages for row in rows] == expected
