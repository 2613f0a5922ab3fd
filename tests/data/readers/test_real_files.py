"""Laws of the files that people have: however they are packed, quoted or laid out, the same rows
come out, or one line says why not."""

import bz2
import gzip
import json
import lzma
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynts_batch.config import InputConfig
from dynts_batch.data.readers.reader import open_source
from dynts_batch.data.readers.source import Source
from dynts_batch.errors import InputError

ROWS = [{"id": f"p{i}", "q": f"Wieviel ist {i} mal zwei, é🙂?", "n": i} for i in range(5)]
LINES = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in ROWS).encode()


def _open(path: Path | str, **keys) -> Source:
    columns = {"id_column": "id", "prompt_column": "q"}
    source = open_source(InputConfig(path=str(path), **(columns | keys)))
    source.validate()
    return source


def _write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def _zstd(content: bytes) -> bytes:
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


LAYOUTS = {
    "lines": LINES,
    "lines after a byte order mark": b"\xef\xbb\xbf" + LINES,
    "a compact array": json.dumps(ROWS).encode(),
    "a pretty array": json.dumps(ROWS, indent=4, ensure_ascii=False).encode(),
    "an array, one object a line": b"[\n" + b",\n".join(LINES.splitlines()) + b"\n]\n",
    "an array that begins with its first object": b"[" + b",\n".join(LINES.splitlines()) + b"]",
    "an array after a byte order mark": b"\xef\xbb\xbf \n" + json.dumps(ROWS).encode(),
    "pretty objects, one after the other": b"\n".join(
        json.dumps(r, indent=2).encode() for r in ROWS
    ),
}
PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": _zstd,
    "": lambda content: content,
}


@pytest.mark.parametrize("name", ["data.jsonl", "data.json"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_json_is_read_however_it_is_laid_out(tmp_path, layout, name):
    source = _open(_write(tmp_path / name, LAYOUTS[layout]))
    read = source.read(0, 5)
    assert [row.prompt for row in read.rows] == [row["q"] for row in ROWS]
    assert read.columns.to_pylist() == ROWS
    assert [row.request_id for row in source.rows(3, 5)] == ["p3", "p4"]


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", ["data.jsonl", "data.csv", "pretty.json"])
def test_a_compressed_file_is_what_it_holds(tmp_path, name, packer):
    content = LINES
    if name == "data.csv":
        content = pd.DataFrame(ROWS).to_csv(index=False).encode()
    elif name == "pretty.json":
        content = LAYOUTS["a pretty array"]
    source = _open(_write(tmp_path / f"{name}{packer}", PACKERS[packer](content)))
    assert [row.prompt for row in source.rows(0, 5)] == [row["q"] for row in ROWS]
    assert source.fingerprint == _open(_write(tmp_path / f"plain-{name}", content)).fingerprint


def test_gzip_of_several_members_is_read_to_its_end(tmp_path):
    """As `cat a.gz b.gz` and parallel compressors write it."""
    first, rest = LINES[:90], LINES[90:]
    path = _write(tmp_path / "data.jsonl.gz", gzip.compress(first) + gzip.compress(rest))
    assert _open(path).num_rows == 5


def test_a_compressed_file_that_is_cut_short_is_refused_in_one_line(tmp_path):
    path = _write(tmp_path / "data.jsonl.gz", gzip.compress(LINES * 100)[:-50])
    with pytest.raises(InputError, match=r"cannot read .*data\.jsonl\.gz") as caught:
        _open(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["", "*.jsonl", "part-?.json*", "**/*.jsonl", "../d*a/part-[12].jsonl"]
)
def test_a_folder_or_a_pattern_of_lines_is_all_of_them_in_order(tmp_path, path):
    halves = LINES.splitlines(keepends=True)
    _write(tmp_path / "data" / "part-1.jsonl", b"".join(halves[:2]))
    _write(tmp_path / "data" / "part-2.jsonl", b"".join(halves[2:]))
    _write(tmp_path / "data" / "_SUCCESS", b"")
    _write(tmp_path / "data" / "README.md", b"words")
    source = _open(tmp_path / "data" / path)
    assert source.read(0, 5).columns.to_pylist() == ROWS
    assert [row.request_id for row in source.rows(1, 3)] == ["p1", "p2"]


@pytest.mark.parametrize(
    ("pattern", "ids"),
    [
        ("part-*", "a"),
        ("*", "a d e f"),
        ("**", "a d e f"),
        ("*.json*", "d e"),
        ("_*", "b"),
        (".*", "c"),
        ("[!x]*", "a e f"),
        ("s*", "f"),
    ],
)
def test_no_file_that_a_pattern_matches_is_left_out(tmp_path, pattern, ids):
    """It was treated as a folder: files without a known ending, and .json beside .jsonl, were
    dropped without a word. Hidden files stay out until they are named, and so does what a matching
    folder holds beside its data."""
    names = {"a": "part-0", "b": "_old", "c": ".b", "d": "x.jsonl", "e": "y.json", "f": "s/1.jsonl"}
    for id_, name in names.items():
        _write(tmp_path / name, f'{{"id": "{id_}", "q": "x"}}\n'.encode())
    if pattern != "**":
        _write(tmp_path / "s" / "README.md", b"words")
    source = _open(tmp_path / pattern, format="jsonl")
    assert {row.request_id for row in source.rows(0, source.num_rows)} == set(ids.split())


def test_in_a_folder_a_message_names_file_and_line(tmp_path):
    _write(tmp_path / "data" / "a.jsonl", LINES)
    _write(tmp_path / "data" / "b.jsonl.gz", gzip.compress(LINES[:60] + b"\n{broken\n"))
    source = open_source(InputConfig(path=str(tmp_path / "data"), prompt_column="q"))
    *_, last = source.rows(0, source.num_rows)
    assert "b.jsonl.gz: must be JSON" in str(last.error)


def test_files_of_one_folder_may_have_other_keys(tmp_path):
    _write(tmp_path / "data" / "a.jsonl", b'{"id": "a", "q": "x", "n": 1}\n')
    _write(tmp_path / "data" / "b.jsonl", b'{"id": "b", "q": "y", "m": "z", "n": 0.5}\n')
    columns = _open(tmp_path / "data").read(0, 2).columns
    assert columns["n"].to_pylist() == [1.0, 0.5]
    assert columns["m"].to_pylist() == [None, "z"]


def test_limit_counts_through_all_files(tmp_path):
    for name in "abc":
        _write(tmp_path / "data" / f"{name}.jsonl", LINES.replace(b'"p', f'"{name}'.encode()))
    source = _open(tmp_path / "data", limit=7)
    assert [row.request_id for row in source.rows(0, source.num_rows)][-2:] == ["b0", "b1"]


def test_json_beside_other_data_describes_it(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "data.parquet")
    _write(tmp_path / "dataset_infos.json", b"{}")
    assert _open(tmp_path).num_rows == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[{'id': 1}]", r"from line 1 on: Expecting property name"),
        (LAYOUTS["a pretty array"][:-30], "is not from line .* on"),
        (json.dumps(ROWS).encode() + b"]", "nothing must follow an array"),
        (b'[{"a": 1}\n {"a": 2}]', "from line 2 on: an array must go on with a comma"),
        (b"hello\nworld\n", "got none: line 1: must be JSON"),
        (b"{'id': 1}\n{'id': 2}\n", "got none: line 1: must be JSON"),
        (b"[1, 2]\n", "got none: element 1 in line 1: must be a JSON object, got int"),
        (
            '{"id": "a", "q": "x"}'.encode("utf-16"),
            "got none: line 1: must be UTF-8, got byte 0xff",
        ),
        (b"PK\x03\x04zip", "got none: line 1: must be JSON"),
    ],
)
def test_what_is_no_json_is_refused_with_the_line_and_why(tmp_path, content, message):
    with pytest.raises(InputError, match=message) as caught:
        _open(_write(tmp_path / "data.json", content))
    assert "\n" not in str(caught.value)


def test_an_element_larger_than_a_block_is_whole(tmp_path):
    rows = [{"id": "a", "q": "x" * (9 << 20)}, {"id": "b", "q": "y"}]
    source = _open(_write(tmp_path / "data.json", json.dumps(rows).encode()))
    assert [len(row.prompt) for row in source.rows(0, 2)] == [9 << 20, 1]


# ---- CSV ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (",id,q\n0,a,x\n", ["Unnamed: 0", "id", "q"]),
        ('"","id","q"\n"1","a","x"\n', ["Unnamed: 0", "id", "q"]),
        (",Unnamed: 0,id,q\n0,0,a,x\n", ["Unnamed: 0.1", "Unnamed: 0", "id", "q"]),
        ("id,q,,\na,x,,\n", ["id", "q", "Unnamed: 2", "Unnamed: 3"]),
        ('"id","q"\n"1","a","x"\n', ["Unnamed: 0", "id", "q"]),
        ("id;q\na;x\n", ["id", "q"]),
        ("sep=;\nid;q\na;x\n", ["id", "q"]),
        ("\ufeffsep=,\r\nid,q\r\na,x\r\n", ["id", "q"]),
        ("id\tq\na\tx\n", ["id", "q"]),
    ],
)
def test_csv_of_pandas_excel_and_r_has_the_columns_that_pandas_names(tmp_path, text, columns):
    source = _open(_write(tmp_path / "data.csv", text.encode()))
    read = source.read(0, 1)
    assert source.schema.names == columns
    assert (read.rows[0].request_id, read.rows[0].prompt) == ("a", "x")


@pytest.mark.parametrize("limit", [None, 1])
def test_a_comma_that_is_not_quoted_breaks_its_own_row_alone(tmp_path, limit):
    """In the first row it passed for a row name of R, and all columns were shifted by one."""
    path = _write(tmp_path / "data.csv", b"q,ref\nwhat is 1,000 + 2?,1002\nb,6\nc,7\n")
    source = open_source(InputConfig(path=str(path), prompt_column="q", limit=limit))
    first, *others = source.rows(0, source.num_rows)
    assert source.schema.names == ["q", "ref"]
    assert "must have 2 fields like the header, got 3" in str(first.error)
    assert [row.prompt for row in others] == ([] if limit else ["b", "c"])


@pytest.mark.parametrize("limit", [None, 1])
def test_row_names_of_r_are_a_column_for_any_limit(tmp_path, limit):
    path = _write(tmp_path / "data.csv", b'"id","q"\n"1","a","x"\n"2","b","y"\n')
    source = _open(path, limit=limit)
    assert source.schema.names == ["Unnamed: 0", "id", "q"]
    assert [row.request_id for row in source.rows(0, source.num_rows)] == ["a", "b"][:limit]


def test_a_folder_of_csv_has_the_columns_of_all(tmp_path):
    _write(tmp_path / "data" / "a.csv", b"id,q\na,x\n")
    _write(tmp_path / "data" / "b.csv", b"q,id,n\ny,b,2\n")
    columns = _open(tmp_path / "data").read(0, 2).columns
    assert columns.to_pylist() == [
        {"id": "a", "q": "x", "n": None},
        {"id": "b", "q": "y", "n": "2"},
    ]


# ---- types --------------------------------------------------------------------------------------

TEXTS = [
    *(pa.string(), pa.large_string(), pa.string_view()),
    *(pa.binary(), pa.large_binary(), pa.binary_view()),
    pa.dictionary(pa.int32(), pa.string()),
]


def _arrow(path: Path, **columns) -> Path:
    table = pa.table(columns)
    with pa.ipc.new_file(path, table.schema) as writer:
        writer.write_table(table)
    return path


@pytest.mark.parametrize("type_", TEXTS, ids=str)
def test_text_is_text_as_prompt_and_id(tmp_path, type_):
    values = pa.array(["one", "é🙂, which no view can hold inline"])
    values = values.dictionary_encode() if pa.types.is_dictionary(type_) else values.cast(type_)
    source = _open(_arrow(tmp_path / "data.arrow", id=values, q=values))
    assert [(row.request_id, row.prompt) for row in source.rows(0, 2)] == [
        ("one", "one"),
        ("é🙂, which no view can hold inline",) * 2,
    ]


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([Decimal(7), Decimal(10**20)], pa.decimal128(38, 0)), ["7", "1" + "0" * 20]),
        (pa.array([1, 2**63], pa.uint64()), ["1", str(2**63)]),
        (
            pa.ExtensionArray.from_storage(
                pa.uuid(), pa.array([b"\0" * 16, b"\xff" * 16], pa.binary(16))
            ),
            ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
        ),
    ],
    ids=["decimal", "uint64", "uuid"],
)  # fmt: skip
def test_whole_numbers_and_uuids_identify(tmp_path, ids, expected):
    source = _open(_arrow(tmp_path / "data.arrow", id=ids, q=["x", "y"]))
    assert [row.request_id for row in source.rows(0, 2)] == expected


def test_times_of_spark_after_2262_are_what_they_were(tmp_path):
    """Spark's 96 bits, read in nanoseconds: 9999-12-31 came out as 1816-03-29, unsaid."""
    end = pa.array([253402214400000000], pa.int64()).view(pa.timestamp("us"))
    table = pa.table({"id": ["a"], "q": ["x"], "until": end})
    pq.write_table(table, tmp_path / "data.parquet", use_deprecated_int96_timestamps=True)
    assert _open(tmp_path / "data.parquet").read(0, 1).columns["until"].combine_chunks() == end


def test_text_that_is_no_utf8_travels_as_it_is(tmp_path):
    broken = pa.array([b"\xff\xfe"]).view(pa.string())
    source = _open(_arrow(tmp_path / "data.arrow", id=["a"], q=["x"], note=broken))
    read = source.read(0, 1)
    assert read.rows[0].error is None
    assert read.columns["note"].cast(pa.binary()).to_pylist() == [b"\xff\xfe"]


# ---- the hub ------------------------------------------------------------------------------------


def test_a_hub_that_cannot_be_reached_is_one_line(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(
        InputError, match=r"cannot open input\.path 'hf://datasets/me/data/a\.jsonl'"
    ) as caught:
        _open("hf://datasets/me/data/a.jsonl")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("pattern", ["", "*", "**/*.parquet", "*/*"])
def test_columns_in_the_names_of_folders_are_columns(tmp_path, pattern):
    """As Spark, duckdb, polars and pandas write partitions: the column was gone, unsaid."""
    for name, id_ in (
        ("level=1", "a"),
        ("level=a%2Fb", "b"),
        ("level=__HIVE_DEFAULT_PARTITION__", "c"),
    ):
        folder = tmp_path / "data=x" / name
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"id": [id_], "q": ["x"]}), folder / "part.parquet")
    source = _open(tmp_path / "data=x" / pattern, reference_column="level")
    assert {row.request_id: row.reference for row in source.rows(0, 3)} == {
        "a": "1",
        "b": "a/b",
        "c": None,
    }
    assert source.schema.names == ["id", "q", "level"]
