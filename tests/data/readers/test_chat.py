"""Laws of chats: content parts and tool calls are read in every format,
and the turns are those that a template takes."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dynts_batch.config import InputConfig
from dynts_batch.data.readers.chat import turns_of
from dynts_batch.data.readers.reader import open_source
from dynts_batch.errors import BadRowError

CALL = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
CHAT = [
    {"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "4", "tool_call_id": "c1"},
]
TURNS = [
    {"role": "user", "content": "2+2"},
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [CALL | {"function": {"name": "add", "arguments": {"a": 1}}}],
    },
    {"role": "tool", "content": "4", "tool_call_id": "c1"},
]


def _write(folder, format_: str) -> tuple[str, dict]:
    keys = {"messages_column": "chat"}
    path = folder / f"data.{format_}"
    if format_ == "jsonl":
        path.write_text(json.dumps({"chat": CHAT}))
    elif format_ == "openai":
        path.write_text(json.dumps({"custom_id": "a", "body": {"messages": CHAT}}))
        keys = {"format": "openai"}
    elif format_ == "text":
        path = folder / "data.parquet"
        pq.write_table(pa.table({"chat": [json.dumps(CHAT)]}), path)
    else:  # each turn of a column has all keys there, and content of one type
        chat = [turn | {"content": _as_parts(turn["content"])} for turn in CHAT]
        pq.write_table(pa.table({"chat": [chat]}), path)
    return str(path), keys


def _as_parts(content):
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


@pytest.mark.parametrize("format_", ["jsonl", "openai", "text", "parquet"])
def test_parts_are_joined_and_tool_calls_passed_on(tmp_path, format_):
    path, keys = _write(tmp_path, format_)
    source = open_source(InputConfig(path=path, **keys))
    source.validate()
    (row,) = source.rows(0, 1)
    assert row.error is None
    assert row.messages == TURNS


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("x", "x"),
        (["a", "b"], "ab"),
        ([{"text": "a"}], "a"),
        ([{"type": "input_text", "text": "a"}, {"type": "text", "text": "b", "image_url": None}],
         "ab"),
        ([], ""),
    ],
)  # fmt: skip
def test_content_that_is_text_is_text(content, text):
    assert turns_of([{"role": "user", "content": content}]) == [{"role": "user", "content": text}]


@pytest.mark.parametrize(
    "part", [{"type": "image_url", "image_url": {"url": "x"}}, {"type": "text"}, 3, None]
)
def test_content_that_is_no_text_is_refused_by_name(part):
    with pytest.raises(BadRowError, match="content must be text, got the part"):
        turns_of([{"role": "user", "content": [part]}])


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "user", "content": None},
        {"role": "assistant", "content": None},
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": None, "content": "x"},
        {"content": "x"},
        "x",
    ],
)
def test_a_turn_that_says_nothing_is_none(turn):
    assert turns_of([turn]) is None


def test_turns_may_be_maps(tmp_path):
    type_ = pa.list_(pa.map_(pa.string(), pa.string()))
    chat = pa.array([[[("role", "user"), ("content", "hi")]]], type_)
    pq.write_table(pa.table({"chat": chat}), tmp_path / "data.parquet")
    source = open_source(InputConfig(path=str(tmp_path / "data.parquet"), messages_column="chat"))
    (row,) = source.rows(0, 1)
    assert row.messages == [{"role": "user", "content": "hi"}]
