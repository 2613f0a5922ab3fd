"""The log-probabilities of a row are those of the distribution that its tokens were drawn from."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from dynts_batch.config import MemoryConfig, ModelConfig, PolicyConfig, SamplingConfig
from dynts_batch.engine import Engine
from dynts_batch.engine.decoding import recorded_steps as recorded_steps_module
from dynts_batch.records import Request

PROMPTS = [list(range(10, 14 + 3 * i)) for i in range(4)]


def generate(folder, **sampling):
    engine = Engine.load(
        ModelConfig(str(folder)),
        PolicyConfig("full"),
        SamplingConfig(max_new_tokens=30, logprobs=True, **sampling),
        MemoryConfig(max_seqs=3, max_prompt_tokens=40),
    )
    requests = [Request(str(n), prompt_token_ids=ids) for n, ids in enumerate(PROMPTS)]
    return list(engine.generate(requests))


def expected_logits(folder, completion):
    """By transformers: of each completion token, the logits that it was drawn from."""
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    prompt = PROMPTS[int(completion.request_id)]
    token_ids = torch.tensor([[*prompt, *completion.completion_token_ids]])
    with torch.inference_mode():
        return model(token_ids).logits[0, len(prompt) - 1 : -1].float()


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt_oss"])
def test_greedy_ones_are_the_models_own(architecture, tiny_model_dirs):
    folder = tiny_model_dirs[architecture]
    for completion in generate(folder, temperature=0.0):
        expected = expected_logits(folder, completion).log_softmax(dim=-1)
        ids = torch.tensor(completion.completion_token_ids)[:, None]
        torch.testing.assert_close(
            torch.tensor(completion.logprobs), expected.gather(1, ids)[:, 0], atol=1e-4, rtol=0
        )


def test_sampled_ones_are_of_what_temperature_and_filters_leave(tiny_model_dirs):
    folder = tiny_model_dirs["llama"]
    for completion in generate(folder, temperature=0.7, top_k=5, top_p=1.0):
        logits = expected_logits(folder, completion) / 0.7
        kept = logits.masked_fill(logits < logits.topk(5).values[:, -1:], float("-inf"))
        ids = torch.tensor(completion.completion_token_ids)[:, None]
        torch.testing.assert_close(
            torch.tensor(completion.logprobs),
            kept.log_softmax(dim=-1).gather(1, ids)[:, 0],
            atol=1e-4,
            rtol=0,
        )


def test_recorded_steps_have_the_same(tiny_model_dirs, monkeypatch):
    folder = tiny_model_dirs["llama"]
    plain = generate(folder, temperature=0.7)
    monkeypatch.setattr(recorded_steps_module, "RECORD_AFTER", 2)
    assert [c.logprobs for c in generate(folder, temperature=0.7)] == [c.logprobs for c in plain]
