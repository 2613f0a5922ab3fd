"""Answered rows as the response lines of OpenAI's batch API, which its own client reads.

    {"id": "...", "custom_id": "a", "response": {"status_code": 200, "body": {...}}, "error": null}

Knows nothing about files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from dynts_batch.records import NOT_RUN


def response_line(rows: Sequence[Mapping[str, Any]], model: str, created: int) -> dict[str, Any]:
    """The response to one request.

    `rows` are its samples in order, with the columns of the output schema. Samples that were not
    needed give no choices. `created` is Unix time.
    """
    id_ = str(rows[0]["request_id"])
    digest = hashlib.blake2b(id_.encode(), digest_size=12).hexdigest()
    failed = [row for row in rows if row["finish_reason"] == "error"]
    answered = [row for row in rows if row["finish_reason"] not in NOT_RUN]
    error = None
    if failed:
        error = {"code": failed[0]["error_type"], "message": failed[0]["error_message"]}
    body = {
        "id": f"chatcmpl-{digest}",
        "object": "chat.completion",
        "created": created,
        "model": model,
        "choices": [_choice(row) for row in answered],
        "usage": _usage(answered),
    }
    return {
        "id": f"batch_req_{digest}",
        "custom_id": id_,
        "response": {"status_code": 200, "request_id": digest, "body": body} if answered else None,
        "error": error,
    }


def _choice(row: Mapping[str, Any]) -> dict[str, Any]:
    message = {
        "role": "assistant",
        "content": row["answer"],
        "refusal": None,
        "reasoning_content": row["reasoning"],
    }
    index, reason = row["sample_index"], row["finish_reason"]
    reason = "length" if reason == "loop" else reason  # the client knows no other unfinished end
    return {"index": index, "message": message, "finish_reason": reason, "logprobs": None}


def _usage(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    prompt = rows[0]["prompt_tokens"] if rows else 0
    completion = sum(row["completion_tokens"] for row in rows)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {
            "reasoning_tokens": sum(row["reasoning_tokens"] for row in rows)
        },
    }
