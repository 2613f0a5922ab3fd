"""Laws of JSON Lines: bad lines stay rows, and every value finds a type that keeps it."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dynts_batch.config import InputConfig
from dynts_batch.data.readers.formats.json_types import JsonType
from dynts_batch.data.readers.reader import open_source
from dynts_batch.data.readers.source import Source
from dynts_batch.data.source_columns import pack, unpack
from dynts_batch.errors import InputError

SHARED_DATA = Path(os.environ.get("DYNTS_DATA", Path(__file__).parents[4] / "shared" / "data"))


def _open(tmp_path: Path, content: bytes, **keys) -> Source:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    return open_source(InputConfig(path=str(path), **({"prompt_column": "q"} | keys)))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"q": "x"', "must be JSON"),
        (b'{"q": "\xff"}', "must be UTF-8, got byte 0xff"),
        (b"[1]", "must be a JSON object, got list"),
        (b"null", "must be a JSON object, got NoneType"),
        (b'{"q": null}', "must hold text, got null"),
        (b'{"q": ""}', "must hold text, got ''"),
        (b'{"q": 5}', "must hold text, got 5"),
        (b'{"q": ["x"]}', "must hold text, got ['x']"),
        (b'{"z": "x"}', "must hold text, got null"),
        (b'{"q": "\\ud83d"}', "half of a surrogate pair"),
        (b'{"\\ud83d": 1, "q": "x"}', "half of a surrogate pair"),
        (b'{"q": ' + b"[" * 100_000, "must be JSON"),
        (b'{"q": ' + b"9" * 5000 + b"}", "must be JSON"),
        (b"\x00", "must be JSON"),
    ],
)
def test_a_bad_line_is_an_error_row_that_names_the_line(tmp_path, line, message):
    source = _open(tmp_path, b'{"q": "one"}\n\n' + line + b'\n{"q": "three"}\n')
    source.validate()
    one, two, three = source.rows(0, 3)
    assert source.num_rows == 3
    assert (one.prompt, two.prompt, three.prompt) == ("one", None, "three")
    assert str(two.error).startswith("line 3: ")
    assert message in str(two.error)
    assert len({one.request_id, two.request_id, three.request_id}) == 3


def test_a_broken_line_needs_no_id_but_a_good_one_does(tmp_path):
    source = _open(tmp_path, b'{"q": "x", "id": 1}\n{broken\n', id_column="id")
    source.validate()
    assert next(source.rows(0, 1)).request_id == "1"
    with pytest.raises(InputError, match="non-empty text or integers, got None in line 2"):
        _open(tmp_path, b'{"q": "x", "id": 1}\n{"q": "y"}\n', id_column="id").validate()


def test_blank_lines_byte_order_marks_and_line_ends_do_not_count(tmp_path):
    content = b'\xef\xbb\xbf{"q": "one"}\r\n\r\n   \n{"q": "two"}'
    source = _open(tmp_path, content)
    assert [row.prompt for row in source.rows(0, 2)] == ["one", "two"]
    assert source.num_rows == 2


def test_a_prompt_longer_than_a_read_is_whole(tmp_path):
    prompts = ["short", "x" * 10_000_000, "\N{GRINNING FACE}"]
    content = "".join(f"{json.dumps({'q': prompt})}\n" for prompt in prompts)
    assert [row.prompt for row in _open(tmp_path, content.encode()).rows(0, 3)] == prompts


def test_values_that_fit_no_type_are_kept_as_json_text(tmp_path):
    lines = [
        {"q": "x", "mixed": 1, "wide": 2**70, "inexact": 2**60, "free": {}, "number": 1},
        {"q": "x", "mixed": "1", "wide": 1, "inexact": 0.5, "free": {"a": 1}, "number": 0.5},
    ]
    source = _open(tmp_path, "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    columns = source.read(0, 2).columns
    assert columns["mixed"].to_pylist() == ["1", '"1"']
    assert columns["wide"].to_pylist() == [str(2**70), "1"]
    assert columns["inexact"].to_pylist() == [str(2**60), "0.5"]
    assert source.schema.field("free").type == pa.struct([("a", pa.int64())])
    assert source.schema.field("number").type == pa.float64()


def test_a_file_of_ever_new_keys_is_refused(tmp_path):
    content = "".join(f"{json.dumps({'q': 'x', f'k{i}': 1})}\n" for i in range(1100))
    with pytest.raises(InputError, match=r"at most 1000 different keys .* by line 1000"):
        _open(tmp_path, content.encode())


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.lists(JSON, min_size=1, max_size=5))
def test_every_json_value_can_be_written_and_read_back(tmp_path_factory, values):
    lines = [{"q": "x", "v": value} for value in values]
    content = "".join(f"{json.dumps(line)}\n" for line in lines).encode()
    source = _open(tmp_path_factory.getbasetemp(), content)
    stored = unpack(pack(source.read(0, len(values)).columns))["v"].to_pylist()
    if source.schema.field("v").metadata:  # stored as JSON text
        stored = [None if value is None else json.loads(value) for value in stored]
    assert [_without_nulls(value) for value in stored] == [_without_nulls(v) for v in values]


def _without_nulls(value):
    """Arrow structs have all keys, those that are absent as null; text stays as it is."""
    if isinstance(value, dict):
        return {k: _without_nulls(v) for k, v in value.items() if v is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def test_types_widen_and_nulls_fit_everything():
    column = JsonType()
    for value in (None, [1, None], [], [2.5]):
        column.observe(value)
    assert column.arrow_type() == pa.list_(pa.float64())


def test_gsm8k_is_read_whole():
    path = SHARED_DATA / "gsm8k.jsonl"
    if not path.exists():
        pytest.skip(f"no GSM8K at {path}; set DYNTS_DATA")
    source = open_source(
        InputConfig(path=str(path), prompt_column="question", reference_column="answer")
    )
    source.validate()
    rows = list(source.rows(0, source.num_rows))
    assert source.num_rows == 1319
    assert len({row.request_id for row in rows}) == 1319
    assert not any(row.error for row in rows)
    assert rows[0].reference.endswith("#### 18")
