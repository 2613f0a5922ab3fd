"""Laws of CSV: all is text, records may span lines, broken ones stay rows."""

from pathlib import Path

import pytest

from dynts_batch.config import InputConfig
from dynts_batch.data.readers.reader import open_source
from dynts_batch.data.readers.source import Source
from dynts_batch.errors import InputError


def _open(tmp_path: Path, content: bytes, **keys) -> Source:
    path = tmp_path / "data.csv"
    path.write_bytes(content)
    return open_source(InputConfig(path=str(path), prompt_column="q", **keys))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (b"\xff,2", "must be UTF-8, got byte 0xff"),
        (b"x", "must have 2 fields like the header, got 1"),
        (b"x,2,3", "must have 2 fields like the header, got 3"),
        (b'"x"y,2', "must be CSV"),
        (b",2", "must hold text, got ''"),
    ],
)
def test_a_bad_record_is_an_error_row_that_names_the_line(tmp_path, record, message):
    source = _open(tmp_path, b'q,n\n"one\n",1\n\n' + record + b"\nthree,3\n")
    source.validate()
    one, two, three = source.rows(0, 3)
    assert source.num_rows == 3
    assert (one.prompt, two.prompt, three.prompt) == ("one\n", None, "three")
    assert str(two.error).startswith("line 5: ")
    assert message in str(two.error)


def test_a_quote_that_is_never_closed_is_one_error_row(tmp_path):
    source = _open(tmp_path, b'q\none\n"two\nthree\n')
    one, rest = source.rows(0, source.num_rows)
    assert one.prompt == "one"
    assert "line 3: must be CSV" in str(rest.error)


def test_numbers_stay_the_text_they_are(tmp_path):
    source = _open(tmp_path, b"q,id\nx,007\ny,7\nz,1.50\n", id_column="id")
    source.validate()
    assert [row.request_id for row in source.rows(0, 3)] == ["007", "7", "1.50"]


def test_a_field_may_be_longer_than_pythons_own_limit(tmp_path):
    (row,) = _open(tmp_path, b"q\n" + b"x" * 200_000 + b"\n").rows(0, 1)
    assert row.prompt == "x" * 200_000


def test_byte_order_mark_and_windows_line_ends_do_not_count(tmp_path):
    source = _open(tmp_path, b"\xef\xbb\xbfq,n\r\none,1\r\n")
    assert source.read(0, 1).columns.to_pylist() == [{"q": "one", "n": "1"}]


@pytest.mark.parametrize("header", [b"q,q\n", b'"q\n', b"\xff\n"])
def test_a_header_that_names_no_columns_is_refused(tmp_path, header):
    with pytest.raises(InputError, match="must start with a header"):
        _open(tmp_path, header + b"x,y\n")
