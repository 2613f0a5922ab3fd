"""Laws of OpenAI batch files: ids stay, one bad line is one bad row, what is asked for is done or refused."""

import json

import pytest

from dynts_batch.config import InputConfig, SamplingConfig
from dynts_batch.data.readers.openai_batch import response_line
from dynts_batch.data.readers.reader import open_source
from dynts_batch.errors import InputError

SAMPLING = SamplingConfig(temperature=0.5, max_new_tokens=64)


def _line(id_="a", *, url="/v1/chat/completions", **body):
    messages = body.pop("messages", [{"role": "user", "content": "2+2?"}])
    return {"custom_id": id_, "method": "POST", "url": url, "body": {"messages": messages, **body}}


def _rows(tmp_path, *lines):
    path = tmp_path / "batch.jsonl"
    path.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines))
    source = open_source(InputConfig(path=str(path), format="openai"), SAMPLING)
    source.validate()
    return list(source.rows(0, source.num_rows))


def test_ids_and_messages_are_the_lines_own(tmp_path):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hé 🙂"}]
    parts = [
        {"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2"}]}
    ]
    first, second = _rows(tmp_path, _line("x/../🙂", messages=chat), _line("b", messages=parts))
    assert (first.request_id, first.messages) == ("x/../🙂", chat)
    assert second.messages == [{"role": "user", "content": "2+2"}]
    assert json.loads(first.columns["messages"]) == chat


@pytest.mark.parametrize(
    "body",
    [
        {"model": "gpt-x", "temperature": 0.5, "max_tokens": 64, "n": 1, "seed": 0},
        {"stream": False, "tools": [], "stop": None, "presence_penalty": 0, "user": "me"},
        {"response_format": {"type": "text"}, "metadata": {"a": "b"}, "top_p": None},
    ],
)
def test_parameters_that_change_nothing_are_accepted(tmp_path, body):
    (row,) = _rows(tmp_path, _line(**body))
    assert row.error is None


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            _line(temperature=0.9),
            r"body.temperature must be the run's sampling.temperature \(0.5\)",
        ),
        (_line(max_tokens=65), "body.max_tokens must be the run's sampling.max_new_tokens"),
        (_line(tools=[{"type": "function"}]), "body.tools is not supported"),
        (_line(url="/v1/embeddings"), "url must be /v1/chat/completions, got '/v1/embeddings'"),
        ({"custom_id": "a", "body": 3}, "body must be an object with a list of messages"),
        (_line(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "must be text"),
        (_line(messages=[{"role": "assistant", "content": None}]), "must hold a list"),
        (_line(messages=[]), "must hold a list"),
    ],
)
def test_a_line_that_cannot_be_done_is_an_error_row_under_its_own_id(tmp_path, line, message):
    bad, good = _rows(tmp_path, line, _line("b"))
    assert bad.request_id == "a"
    assert bad.error is not None
    assert bad.error.args[0].startswith("line 1: ")
    with pytest.raises(type(bad.error), match=message):
        raise bad.error
    assert good.error is None


@pytest.mark.parametrize("line", ["{broken", "[1]", '{"custom_id": 7, "body": {}}', "{}"])
def test_a_line_without_an_id_is_an_error_row_of_its_own(tmp_path, line):
    bad, good = _rows(tmp_path, line, _line("b"))
    assert bad.error is not None
    assert bad.request_id != good.request_id


def test_an_id_that_stands_twice_is_refused(tmp_path):
    with pytest.raises(InputError, match="'a' in line 1 and line 2"):
        _rows(tmp_path, _line("a"), _line("a"))


def _row(sample=0, reason="stop", **columns):
    counts = {"prompt_tokens": 5, "completion_tokens": 7, "reasoning_tokens": 4}
    texts = {"answer": "4", "reasoning": "2 and 2", "error_type": None, "error_message": None}
    return (
        {"request_id": "a", "sample_index": sample, "finish_reason": reason}
        | counts
        | texts
        | columns
    )


def test_a_response_has_one_choice_a_sample():
    line = response_line([_row(0), _row(1, "length", answer=None)], "my-model")
    body = line["response"]["body"]
    assert (line["custom_id"], line["error"], body["model"]) == ("a", None, "my-model")
    assert [choice["finish_reason"] for choice in body["choices"]] == ["stop", "length"]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["4", None]
    assert body["choices"][0]["message"]["reasoning_content"] == "2 and 2"
    assert body["usage"]["total_tokens"] == 5 + 14


def test_a_failed_request_has_an_error_and_no_response():
    failed = _row(reason="error", error_type="BadRowError", error_message="no prompt")
    line = response_line([failed], "m")
    assert line["response"] is None
    assert line["error"] == {"code": "BadRowError", "message": "no prompt"}
