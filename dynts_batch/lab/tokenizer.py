"""The tokenizer of the embedded model: byte-level BPE with one token per word of the task.

It is built, not fitted: merges spell out every word, number and letter that `problems.py` can
write. Other text falls back to bytes, so any text encodes. Knows nothing about models.
"""

import random

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dynts_batch.engine.model.think_tags import THINK
from dynts_batch.lab.problems import DIGRESSIONS, LETTERS, MAX_VALUE, problem_set

PAD, END, USER, ASSISTANT, SYSTEM = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
SPECIAL_TOKENS = (PAD, END, USER, ASSISTANT, SYSTEM, *THINK)

#: The generation prompt opens the thinking, as the templates of the R1-Distill models do.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|{{ message['role'] }}|>{{ message['content'] }}"
    "{%- if message['role'] == 'assistant' -%}<|end|>{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|><think>{%- endif -%}"
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer, the same at every call."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=100_000,  # an upper bound: training ends when every word is one token
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM, *THINK],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def _corpus() -> list[str]:
    """Every word the task can write, at least once."""
    numbers = [f" {n}" for n in range(MAX_VALUE + 1)] + [str(n) for n in range(MAX_VALUE + 1)]
    letters = [f" {letter}" for letter in LETTERS]
    traces = [
        problem.question
        + "".join(s.text for part in (problem.reasoning(), problem.conclusion()) for s in part)
        for problem in problem_set(seed=0, num_problems=60)
    ]
    random.Random(0).shuffle(traces)
    return numbers * 2 + letters * 2 + list(DIGRESSIONS) + traces
