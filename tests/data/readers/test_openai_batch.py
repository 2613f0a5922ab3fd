"""Laws of OpenAI batch files: ids stay, one bad line is one bad row,
what is asked for is done or refused."""

import json

import pytest

from dynts_batch.config import InputConfig, SamplingConfig
from dynts_batch.data.openai_response import response_line
from dynts_batch.data.readers.reader import open_source
from dynts_batch.errors import InputError

SAMPLING = SamplingConfig(temperature=0.5, max_new_tokens=64)


def _line(id_="a", *, url="/v1/chat/completions", **body):
    messages = body.pop("messages", [{"role": "user", "content": "2+2?"}])
    return {"custom_id": id_, "method": "POST", "url": url, "body": {"messages": messages, **body}}


def _read(tmp_path, *lines):
    path = tmp_path / "batch.jsonl"
    path.write_text("".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in lines))
    source = open_source(InputConfig(path=str(path), format="openai"), SAMPLING)
    source.validate()
    return source.read(0, source.num_rows)


def _rows(tmp_path, *lines):
    return _read(tmp_path, *lines).rows


def test_ids_and_messages_are_the_lines_own(tmp_path):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hé 🙂"}]
    parts = [
        {"role": "user", "content": [{"type": "text", "text": "2+"}, {"type": "text", "text": "2"}]}
    ]
    source = _read(tmp_path, _line("x/../🙂", messages=chat), _line("b", messages=parts))
    first, second = source.rows
    assert (first.request_id, first.messages) == ("x/../🙂", chat)
    assert second.messages == [{"role": "user", "content": "2+2"}]
    assert json.loads(source.columns["messages"][0].as_py()) == chat


@pytest.mark.parametrize(
    "body",
    [
        {"model": "gpt-x", "temperature": 0.5, "max_tokens": 64, "n": 1, "seed": 0},
        {"stream": False, "tools": [], "stop": None, "presence_penalty": 0, "user": "me"},
        {"response_format": {"type": "text"}, "metadata": {"a": "b"}, "top_p": None},
        {"repetition_penalty": 1.0, "length_penalty": 1, "frequency_penalty": 0.0},
        {"tool_choice": "none", "parallel_tool_calls": True, "function_call": "auto"},
        {"stream": True, "stream_options": {"include_usage": True}, "logprobs": False},
        {"safety_identifier": "me", "prompt_cache_key": "k", "verbosity": "medium"},
        {"modalities": ["text"], "audio": None, "store": True, "service_tier": "flex"},
        {"top_k": 20, "min_p": 0.0, "best_of": 1, "ignore_eos": False, "min_tokens": 0},
        {"skip_special_tokens": True, "stop": "", "logit_bias": {}, "top_logprobs": 0},
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
        (_line(repetition_penalty=1.1), "body.repetition_penalty is not supported, got 1.1"),
        (_line(repetition_penalty=0), "body.repetition_penalty is not supported, got 0"),
        (_line(logprobs=True), "body.logprobs is not supported: sampling.logprobs=true writes"),
        (_line(top_logprobs=5), "body.top_logprobs .* sampling.logprobs=true .* got 5"),
        (_line(tool_choice="required"), "body.tool_choice is not supported, got 'required'"),
        (_line(top_k=-1), "body.top_k must be the run's sampling.top_k"),
        (_line(seed=[1]), "body.seed must be the run's sampling.seed"),
        (_line(response_format={"type": "json_object"}), "body.response_format is not supported"),
        (_line(url="/v1/responses"), "url must be /v1/chat/completions, got '/v1/responses'"),
        (_line(url=7), "url must be /v1/chat/completions, got 7"),
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


@pytest.mark.parametrize(
    "url",
    [
        "/chat/completions",
        "chat/completions",
        "/v1/chat/completions/",
        "https://api.openai.com/v1/chat/completions",
        "/openai/deployments/mine/chat/completions?api-version=2024-10-21",
        None,
    ],
)
def test_every_way_to_say_chat_completions_is_understood(tmp_path, url):
    (row,) = _rows(tmp_path, _line(url=url))
    assert row.error is None


def test_what_is_off_in_vllms_words_is_off(tmp_path):
    path = tmp_path / "batch.jsonl"
    path.write_text(json.dumps(_line(top_k=-1)))
    source = open_source(InputConfig(path=str(path), format="openai"), SamplingConfig(top_k=0))
    assert next(source.rows(0, 1)).error is None


def test_a_line_may_say_something_to_the_chat_template(tmp_path):
    plain, effort, both = _rows(
        tmp_path,
        _line("a"),
        _line("b", reasoning_effort="high"),
        _line("c", reasoning_effort="low", chat_template_kwargs={"enable_thinking": False}),
    )
    assert plain.request(0).chat_template_kwargs is None
    assert effort.request(0).chat_template_kwargs == {"reasoning_effort": "high"}
    expected = {"reasoning_effort": "low", "enable_thinking": False}
    assert both.request(0).chat_template_kwargs == expected
    _, bad = _rows(tmp_path, _line("a"), _line("b", chat_template_kwargs=3))
    assert "body.chat_template_kwargs must be an object, got 3" in str(bad.error)


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
    line = response_line([_row(0), _row(1, "length", answer=None)], "my-model", 17)
    body = line["response"]["body"]
    assert (line["custom_id"], line["error"], body["model"]) == ("a", None, "my-model")
    assert [choice["finish_reason"] for choice in body["choices"]] == ["stop", "length"]
    assert [choice["message"]["content"] for choice in body["choices"]] == ["4", None]
    assert body["choices"][0]["message"]["reasoning_content"] == "2 and 2"
    assert body["usage"]["total_tokens"] == 5 + 14


def test_a_failed_request_has_an_error_and_no_response():
    failed = _row(reason="error", error_type="BadRowError", error_message="no prompt")
    line = response_line([failed], "m", 17)
    assert line["response"] is None
    assert line["error"] == {"code": "BadRowError", "message": "no prompt"}
