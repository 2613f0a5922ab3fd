#!/usr/bin/env bash
# transformers 5.24.0, jinja2 3.1.6, Python 3.11.
#
# Guess: keyword arguments of apply_chat_template are the template's variables as they are, and come
# before its globals: a fixed strftime_now (gpt-oss and Llama 3 templates write today's date by it)
# makes prompts reproducible.
# Behaviour: everything but plain data is replaced by the text of its type, so the function becomes
# "<function>", which the template cannot call. Other objects are swallowed in silence: a date
# prints as "<date>".
# Output seen:
#   a function: 'str' object is not callable
#   a date: <date>
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q transformers==5.24.0 jinja2==3.1.6
"$folder/venv/bin/python" - 2>/dev/null <<'PYTHON'
from datetime import date

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

words = models.WordLevel({"a": 0}, unk_token="a")
tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(words))
chat = [{"role": "user", "content": "a"}]


def render(template, **variables):
    return tokenizer.apply_chat_template(chat, chat_template=template, tokenize=False, **variables)


try:
    found = render("{{ strftime_now('%Y') }}", strftime_now=lambda _: "1999")
except TypeError as error:
    found = str(error)
shown = render("{{ day }}", day=date(1999, 1, 2))
print("a function:", found)
print("a date:", shown)
assert found == "'str' object is not callable", "templates are given functions now"
assert shown == "<date>"
PYTHON
