"""Laws of Request and Completion."""

import pickle

from dynts_batch.errors import PromptTooLongError
from dynts_batch.records import Completion, Request


def test_a_failed_completion_keeps_the_identity_and_types_the_error():
    request = Request("a", 3, prompt="2+2?")
    error = PromptTooLongError("prompt of 900 tokens must be shorter than policy.budget (512)")
    completion = Completion.failed(request, error, seed=7)
    assert (completion.request_id, completion.sample_index, completion.seed) == ("a", 3, 7)
    assert completion.finish_reason == "error"
    assert completion.error_type == "PromptTooLongError"
    assert completion.error_message == str(error)
    assert completion.prompt == "2+2?"
    assert completion.completion_tokens == 0


def test_records_survive_pickling():
    request = Request("a", messages=[{"role": "user", "content": "2+2?"}])
    completion = Completion("a", 0, "stop", completion_token_ids=(1, 2))
    assert pickle.loads(pickle.dumps((request, completion))) == (request, completion)
