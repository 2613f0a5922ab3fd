#!/usr/bin/env bash
# xgrammar 0.2.8, llguidance 1.7.6, Python 3.11: what vLLM and SGLang keep JSON to a schema by.
#
# Guess: "minimum": 0 (pydantic's Field(ge=0), PositiveFloat, a probability) forbids negative
# numbers, and all others can be written as before.
# Behaviour: a bound forbids exponents, in both. A model that is about to write 6.02e23 is stopped
# at the e, and what it can do is to end the number: 6.02. A probability of 1e-9 becomes 1. The JSON
# is valid and fits the schema, so nobody notices. xgrammar stops at six decimals, too, so that a
# small probability becomes 0. Without a bound all of them can be written.
# Output seen:
#   no bound: xgrammar 6.02e23 1e-9 0.00000016, llguidance 6.02e23 1e-9 0.00000016
#   minimum 0: xgrammar 6.02 1 0.000000, llguidance 6.02 1 0.00000016
#   0 to 1: xgrammar - 1 0.000000, llguidance - 1 0.00000016  (- is out of bounds)
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q xgrammar==0.2.8 llguidance==1.7.6 torch==2.13.0
"$folder/venv/bin/python" - > "$folder/out" 2> "$folder/log" <<'PYTHON'
import json

import llguidance
import xgrammar

END = 256
compiler = xgrammar.GrammarCompiler(
    xgrammar.TokenizerInfo(
        [bytes([byte]) for byte in range(256)] + [b"<end>"],
        vocab_type=xgrammar.VocabType.RAW,
        stop_token_ids=[END],
    )
)
tokenizer = llguidance.LLTokenizer("byte")


def by_xgrammar(schema):
    matcher = xgrammar.GrammarMatcher(compiler.compile_json_schema(json.dumps(schema)))
    return matcher.accept_token


def by_llguidance(schema):
    grammar = llguidance.LLMatcher.grammar_from_json_schema(json.dumps(schema))
    matcher = llguidance.LLMatcher(tokenizer, grammar)
    return lambda byte: matcher.try_consume_tokens([byte]) == 1


def written(accepts, number):
    """What a model that wants this number writes; where it is stopped, it ends the object."""
    text = ""
    for character in '{"x": ' + number + "}":
        if not accepts(ord(character)):
            break
        text += character
    if not text.endswith("}"):
        if not accepts(ord("}")):
            return "-"
        text += "}"
    assert isinstance(json.loads(text)["x"], (int, float))
    return text[len('{"x": ') : -1]


for name, bounds in [
    ("no bound", {}),
    ("minimum 0", {"minimum": 0}),
    ("0 to 1", {"minimum": 0, "maximum": 1}),
]:
    schema = {
        "type": "object",
        "properties": {"x": {"type": "number", **bounds}},
        "required": ["x"],
        "additionalProperties": False,
    }
    seen = []
    for library, start in [("xgrammar", by_xgrammar), ("llguidance", by_llguidance)]:
        numbers = [written(start(schema), n) for n in ("6.02e23", "1e-9", "0.00000016")]
        seen.append(f"{library} {' '.join(numbers)}")
    print(f"{name}: {', '.join(seen)}")
PYTHON
cat "$folder/out"
grep -q "^no bound: xgrammar 6.02e23 1e-9 0.00000016, llguidance 6.02e23 " "$folder/out"
grep -q "^minimum 0: xgrammar 6.02 1 0.000000, llguidance 6.02 1 0.00000016$" "$folder/out"
grep -q "^0 to 1: xgrammar - 1 0.000000, llguidance - 1 0.00000016$" "$folder/out"
