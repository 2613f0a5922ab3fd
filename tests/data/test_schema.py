"""Laws of the row schema and of the tables in it."""

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynts_batch.data.readers.source import SourceRow
from dynts_batch.data.schema import DESCRIPTION, OWN_FIELDS, SOURCE_COLUMN, row_schema
from dynts_batch.data.writer import output_row, rows_to_table
from dynts_batch.records import Completion

SOURCE = pa.schema([("question", pa.string()), ("answer", pa.string()), ("idx", pa.int64())])
ROW = SourceRow(0, "a", prompt="2+2?", reference="4")
COLUMNS = pa.table({"question": ["2+2?"], "answer": ["4"], "idx": [0]})


def test_every_field_has_a_description():
    for field in row_schema(SOURCE):
        assert field.metadata[DESCRIPTION], field.name


def test_source_columns_keep_their_names_unless_taken():
    names = row_schema(SOURCE).names
    assert {"question", "idx", "source_answer"} <= set(names)
    assert len(names) == len(set(names)) == len(OWN_FIELDS) + 3


def test_no_two_columns_share_a_name_whatever_the_source_calls_its_own():
    source = pa.schema([(n, pa.string()) for n in ("answer", "source_answer", "source_source_x")])
    schema = row_schema(source)
    assert len(set(schema.names)) == len(schema.names)
    origins = {f.metadata[SOURCE_COLUMN].decode(): f.name for f in schema if _is_source(f)}
    assert origins["source_answer"] == "source_answer"
    assert origins["answer"] == "source_source_answer"


def _is_source(field: pa.Field) -> bool:
    return SOURCE_COLUMN in field.metadata


def test_a_row_holds_source_completion_and_extras():
    schema = row_schema(SOURCE)
    completion = Completion("a", 2, "stop", seed=1, answer="It is 4.", completion_tokens=9)
    row = output_row(schema, ROW, completion, {"correct": True, "cost_usd": 0.5})
    (read,) = rows_to_table(schema, [row], COLUMNS).to_pylist()
    assert (read["request_id"], read["sample_index"], read["seed"]) == ("a", 2, 1)
    assert (read["answer"], read["source_answer"], read["reference"]) == ("It is 4.", "4", "4")
    assert (read["correct"], read["cost_usd"], read["completion_tokens"]) == (True, 0.5, 9)
    assert read["energy_j"] is None


def test_a_row_has_the_tokens_that_were_generated_and_an_error_row_has_none():
    schema = row_schema(SOURCE)
    completions = [
        Completion("a", 0, "stop", completion_token_ids=(5, 199_999, 2), completion_tokens=3),
        Completion.failed(ROW.request(1), ValueError("x")),
    ]
    rows = [output_row(schema, ROW, c, {}) for c in completions]
    table = rows_to_table(schema, rows, pa.concat_tables([COLUMNS] * 2))
    assert table["completion_token_ids"].type.value_type == pa.int32()
    assert table["completion_token_ids"].to_pylist() == [[5, 199_999, 2], None]


def test_extras_cannot_invent_or_misspell_columns():
    with pytest.raises(AssertionError, match="energy_joule"):
        output_row(row_schema(SOURCE), ROW, Completion("a", 0, "stop"), {"energy_joule": 1.0})


def test_rows_load_with_pandas_and_datasets_as_they_are(tmp_path):
    schema = row_schema(SOURCE.with_metadata({"huggingface": "{}", "pandas": "{}"}))
    row = output_row(schema, ROW, Completion("a", 0, "stop"), {})
    table = rows_to_table(schema, [row], COLUMNS)
    path = str(tmp_path / "rows.parquet")
    pq.write_table(table, path)
    assert pd.read_parquet(path)["source_answer"].tolist() == ["4"]
    loaded = datasets.load_dataset("parquet", data_files=path, cache_dir=str(tmp_path / "cache"))
    assert loaded["train"][0]["finish_reason"] == "stop"
