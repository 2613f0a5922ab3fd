"""Law of references: whatever type a data set has for its answers,
they are the text that a grader can compare with, or null."""

import datetime
import json
from decimal import Decimal

import pyarrow as pa
import pytest

from dynts_batch.config import InputConfig
from dynts_batch.data.readers.reader import open_source

DAY = datetime.date(2024, 1, 2)
MOMENT = datetime.datetime(2024, 1, 2, 3, 4, 5)
LISTS = (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)

CASES = [
    (pa.array([4, None]), ["4", None]),
    (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
    (pa.array([42.0, 0.5, float("nan"), float("inf")]), ["42.0", "0.5", None, None]),
    (pa.array([0.1], pa.float32()), ["0.1"]),
    (pa.array([0.1, float("nan")], pa.float16()), ["0.1", None]),
    (pa.array([Decimal("42.00"), Decimal("-0.50")]), ["42.00", "-0.50"]),
    (pa.array([Decimal("1200")], pa.decimal128(5, -2)), ["1200"]),
    (pa.array([Decimal("1.5")], pa.decimal32(5, 1)), ["1.5"]),
    (pa.array([True, None]), ["true", None]),
    (pa.array([DAY, None]), ["2024-01-02", None]),
    (pa.array([10**7], pa.int32()).view(pa.date32()), ["29349-01-26"]),
    (pa.array([MOMENT]), ["2024-01-02T03:04:05"]),
    (pa.array([2**63 - 1]).view(pa.timestamp("us")), ["294247-01-10T04:00:54.775807"]),
    (pa.array([MOMENT], pa.timestamp("s", "Asia/Tokyo")), ["2024-01-02T12:04:05+09:00"]),
    (pa.array([datetime.time(3, 4, 5, 500_000)]), ["03:04:05.5"]),
    (pa.array([datetime.timedelta(hours=1, minutes=30)]), ["PT1H30M"]),
    (pa.array([pa.MonthDayNano([1, 2, 3_000_000_000])]), ["P1M2DT3S"]),
    (pa.array(["a"]).dictionary_encode(), ["a"]),
    (pa.array(["x"], pa.string_view()), ["x"]),
    (pa.array([b"42"]), ["42"]),
    (pa.nulls(2), [None, None]),
    *((pa.array([["4", "7"], ["2"], [], None, [None]], make(pa.string())),
       ["4, 7", "2", None, None, None])
      for make in LISTS),
    (pa.array([["4", "7"]], pa.list_(pa.string(), 2)), ["4, 7"]),
    (pa.array([[1.5, float("nan")], [2.0]]), ["1.5", "2.0"]),
    (pa.array([[[1, 2], [3, 4]], [[5]]]), ["(1, 2), (3, 4)", "5"]),
    (pa.array([[Decimal("1.0"), Decimal("2.5")]]), ["1.0, 2.5"]),
    (pa.array([{"a": 1}]), ['{"a": 1}']),
]  # fmt: skip


def _references(path, **keys) -> list[str | None]:
    source = open_source(InputConfig(path=str(path), prompt_column="q", reference_column="ref"))
    return [row.reference for row in source.rows(0, source.num_rows)]


@pytest.mark.parametrize(("column", "expected"), CASES, ids=lambda x: str(getattr(x, "type", "")))
def test_a_reference_of_any_type_is_text_or_null(tmp_path, column, expected):
    table = pa.table({"q": ["x"] * len(column), "ref": column})
    with pa.ipc.new_file(tmp_path / "data.arrow", table.schema) as writer:
        writer.write_table(table)
    assert _references(tmp_path / "data.arrow") == expected


def test_references_of_json_are_the_same_whatever_stands_beside_them(tmp_path):
    values = [["4", "7"], ["2"], [], float("nan"), 3, "x", {"a": 1}, None, [[1, 2], [3]]]
    lines = [json.dumps({"q": "x", "ref": value}) for value in values]
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    expected = ["4, 7", "2", None, None, "3", "x", '{"a": 1}', None, "(1, 2), 3"]
    assert _references(tmp_path / "data.jsonl") == expected
