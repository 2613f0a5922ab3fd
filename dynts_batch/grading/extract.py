r"""Finds the final answer in a model's text, or the reference in a data set's answer column.

An answer is looked for in this order; the first hit wins:

1. the last balanced `\boxed{...}`, `\fbox{...}`, `\framebox{...}` or bare `\boxed 5`. Boxes joined
   by nothing but commas, "and" or "or" are one answer: `\boxed{2}` and `\boxed{3}` is "2, 3";
2. the last line `#### x` (GSM8K) that holds a number or ends the text. Elsewhere it is a heading;
3. the last stated answer: "the final answer is x", "Answer: x";
4. the last number, or the formula (`$...$`, `\(...\)`, `\[...\]`) that holds it.

A fenced code block counts as text: rules 2 to 4 do not look inside one. If rule 4 finds nothing
after the last block, the block itself is the answer.

Every step is one scan with bounded lookahead: text is untrusted, and model loops make long ones.
"""

from __future__ import annotations

import re

from dynts_batch.grading.notation.numeral import SCALES
from dynts_batch.grading.notation.quantity import read_quantity
from dynts_batch.grading.notation.typography import typeset

_BOX_OR_BRACE = re.compile(r"\\\\?(?:boxed|fbox|framebox)(?![A-Za-z])\s*|\\.|[{}]", re.DOTALL)
_BARE_ARGUMENT = re.compile(r"[^\s${}\\]+")
_BOX_SEPARATOR = re.compile(r"[\s$]*(?:,|;|,?\s*\b(?:and|or)\b)[\s$]*", re.IGNORECASE)
_MAX_SEPARATOR_CHARS = 20

_HASH_LINE = re.compile(r"^[ \t]*####(?!#)[ \t]*(\S[^\n]*)$", re.MULTILINE)

_STATED = re.compile(
    r"(?:(?<!hope this )(?<!hope the )(?<!hope my )"  # "I hope this answer is helpful"
    r"\bans(?:wer)?\b[^.\n:=]{0,60}?(?:\bis\b|\bequals\b|[:=])"
    r"|(?:答案|答え|正解)[^.\n:是为は]{0,9}[:是为は])"
    r"(?:[\s*_:=]{0,16}?\n[ \t]{0,8}[->•][ \t]{1,8})?"  # the bullet of a list, no minus sign
    r"[\s*_:=]{0,16}",
    re.IGNORECASE,
)
#: What is said of an answer that was stated before: "This answer is correct."
_VERDICT = re.compile(
    r"(?:indeed |also )?(?:correct|right|valid|reasonable|consistent|verified|confirmed)"
    r"(?:[, ]+(?:and|as|because|for|since|with)\b.*)?",
    re.IGNORECASE,
)
_MAX_STATED_CHARS = 200
_SENTENCE_END = re.compile(r"\n|[.!?](?=\s|$)")
_FORMULA = re.compile(r"\$([^$\n]{1,200})\$|\\\(([^$\n]{1,200}?)\\\)|\\\[([^$]{1,200}?)\\\]")
_FORMULA_ON_LINES = re.compile(r"\\\[[^$]{1,200}?\\\]|\\\([^$]{1,200}?\\\)|\$\$[^$]{1,200}\$\$")
_LATEX_COMMAND = re.compile(r"\\[A-Za-z]+")
_LEFT_SIDE = re.compile(r"[A-Za-z]{1,3}|[^A-Za-z]*")
_WORD = re.compile(r"(?!(?:and|or)\b)\b[A-Za-z]{2,}|[^\W\d_\x00-\x7f]", re.IGNORECASE)

#: A number in a text, with its sign, decimals, exponent, denominator and percent sign.
NUMBER = re.compile(
    r"(?<![\w.,/])-?\d{1,9}(?:\s?\\[dt]?frac\{\d+\}\{\d+\}|[ ]\d{1,9}/\d{1,9}(?![\d/]))"
    r"|-?\\[dt]?frac\{-?\d+\}\{\d+\}"
    r"|(?<![\w.])(?<!\d:)[-+\u2212]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+|(?=\.\d))(?:\.\d+)?"
    r"(?:[eE][-+]?\d{1,3}(?!\d))?(?:/\d+)?(?!:?\d)"  # no part of 1:58
    rf"(?:\\?%|[ ](?:{'|'.join(SCALES)})\b)?"
)

_TIME = re.compile(r"(?<![\w.:])\d{1,2}:[0-5]\d(?![\d:])(?:\s?[ap]\.?m\b\.?)?", re.IGNORECASE)

_CODE_BLOCK = re.compile(
    r"^[ \t]*(`{3,}+|~{3,}+)[^\n]*\n(.*?)(?:^[ \t]*\1[ \t]*$|\Z)", re.MULTILINE | re.DOTALL
)

_MORE_CHOICES = r"(?!\s*(?:[,/&]|,?\s*\b(?:and|or)\b)\s*\(?[A-Ha-h]\)?(?![A-Za-z]))"
_CHOICE = re.compile(r"\(([A-Za-z])\)|([A-Za-z])(?:$|[.:)])|([A-Z]),")
_CHOICE_LIST = re.compile(r"\(?[A-Z]\)?(?:[,/&]|,?(?:and|or))\(?[A-Z]\)?(?![a-z])")
_CHOICE_KEY = re.compile(r"\(?([A-Z])\)?\.?|\(([a-z])\)")
_CHOICE_MARKUP = re.compile(r"\\(?:text|math)(?:bf|rm|it)?(?![A-Za-z])|[${}*_\s]")
_CHOICE_NAME = re.compile(r"^\(?(?:the)?(?:option|choice|answer)(?:is)?:?", re.IGNORECASE)
_STATED_CHOICE = re.compile(
    r"(?:(?i:\b(?:answer|ans|option|choice)\b)|答案|答え|正解|选)[\s:*$_是为は]{0,8}"
    r"(?i:(?:is|would be|must be)\b[\s:*$_]{0,8})?"
    r"(?i:(?:option|choice)\s{1,4})?(?:\\(?:text|math)(?:bf|rm|it)?)?[({*\\$\s]{0,6}"
    r"(?:([A-Z])(?![A-Za-z'])|([a-z])(?=[).:,*}$]|\s*(?:\n|$)))" + _MORE_CHOICES
)
_CHOICE_IN_PARENTHESES = re.compile(r"\(([A-Z])\)")


def extract_answer(text: str) -> str | None:
    """The final answer in `text` by the module's four rules; None if it holds none."""
    blocks = list(_CODE_BLOCK.finditer(text))
    prose = _CODE_BLOCK.sub("\n", text) if blocks else text
    found = extract_box(text) or _after_hashes(prose) or _stated(prose)
    if found is not None or not blocks:
        return found or _last_formula_or_number(prose)
    code = blocks[-1][2].rstrip()
    return (
        _last_formula_or_number(text[blocks[-1].end() :]) or code or _last_formula_or_number(prose)
    )


def extract_choice(text: str) -> str | None:
    """The chosen letter of a multiple-choice answer, "A" to "Z"; None if `text` names none.

    The places, in order: the last box; after `####`; after "answer", "option" or "choice"; the last
    line; the whole text. In the last two it is a letter in parentheses or at the start. A box that
    holds something else rules out every letter.
    """
    boxed = extract_box(text)
    if boxed is not None:
        return _as_choice(boxed)
    after_hashes = _after_hashes(text)
    if after_hashes is not None and (letter := _as_choice(after_hashes)) is not None:
        return letter
    stated = _last(_STATED_CHOICE, text)
    if stated is not None:
        return stated[1] or stated[2].upper()
    for part in (text.rstrip().rpartition("\n")[2], text):
        in_parentheses = _last(_CHOICE_IN_PARENTHESES, part)
        letter = in_parentheses[1] if in_parentheses is not None else _as_choice(part)
        if letter is not None:
            return letter
    return None


def reference_choice(reference: str) -> str | None:
    """The letter of a multiple-choice key ("C", "(C)", "C."); None if the reference is none."""
    key = _CHOICE_KEY.fullmatch(_CHOICE_MARKUP.sub("", reference))
    return (key[1] or key[2].upper()) if key is not None else None


def extract_reference(reference: str) -> str | None:
    """The answer inside a reference: its box or `####` line if it has one, else all of it.

    Prose is not searched: a reference such as "Quadrant 3" is an answer, not a text around one.
    A blank reference gives None.
    """
    return extract_box(reference) or _after_hashes(reference) or reference.strip() or None


def extract_box(text: str) -> str | None:
    """The content of the last non-empty balanced box; nested boxes give the innermost."""
    spans = _box_spans(text)
    while spans:
        start, content_start, content_end = spans.pop()
        content = text[content_start:content_end].strip()
        if content:
            return _with_joined_boxes(text, spans, start, content)
    return None


def _with_joined_boxes(text: str, spans: list[tuple[int, int, int]], start: int, last: str) -> str:
    contents = [last]
    for box_start, content_start, content_end in reversed(spans):
        between_start = content_end + (text[content_end : content_end + 1] == "}")
        if not 0 < start - between_start <= _MAX_SEPARATOR_CHARS:
            break
        if not _BOX_SEPARATOR.fullmatch(text, between_start, start):
            break
        contents.append(text[content_start:content_end].strip())
        start = box_start
    return ", ".join(dict.fromkeys(filter(None, reversed(contents))))


def _box_spans(text: str) -> list[tuple[int, int, int]]:
    """(box start, content start, content end) of every balanced box, by box start, in one pass.

    Escaped braces (`\\{`) do not count, and a box that is never closed hides none of the others.
    """
    spans: list[tuple[int, int, int]] = []
    open_braces: list[tuple[int, int] | None] = []  # (box start, content start), None: plain brace
    box_start: int | None = None
    for token in _BOX_OR_BRACE.finditer(text):
        if token[0] == "{":
            open_braces.append(None if box_start is None else (box_start, token.end()))
        elif token[0] == "}":
            opened = open_braces.pop() if open_braces else None
            if opened is not None:
                spans.append((*opened, token.start()))
        box_start = None
        if len(token[0]) > 2:  # a box command: its argument is a group or the next bare token
            bare = _BARE_ARGUMENT.match(text, token.end())
            if bare is not None:
                spans.append((token.start(), bare.start(), bare.end()))
            else:
                box_start = token.start()
    return sorted(spans)


def _after_hashes(text: str) -> str | None:
    last_line, last_number = None, None
    for last_line in _HASH_LINE.finditer(text):
        content = last_line[1].strip().removeprefix("$").rstrip(".")
        last_number = NUMBER.fullmatch(content) or last_number
    if last_line is not None and not text[last_line.end() :].strip():
        return last_line[1].strip()
    return last_number[0] if last_number is not None else None


def _stated(text: str) -> str | None:
    leads = [lead.end() for lead in _STATED.finditer(text)]
    if not leads:
        return None
    sentences = (_sentence(text, start) for start in reversed(leads))
    sentence = next(
        (sentence for sentence in sentences if not _VERDICT.fullmatch(sentence)),
        _sentence(text, leads[-1]),
    )
    formula = _FORMULA.search(sentence)
    # Beside words the formula is the answer. "20 $cm^2$" and "$5$ or $9$" are one answer each.
    if formula is not None and (formula[0] == sentence or _has_prose(_FORMULA.sub("", sentence))):
        return _formula_value(formula)
    if formula is not None:
        return sentence
    number = NUMBER.search(sentence)
    # "the answer is 42 apples" means 42. "2x + 1" and "5 or 9" mean themselves.
    if number is not None and _has_prose(sentence):
        return sentence if read_quantity(typeset(sentence)).unit is not None else number[0]
    return sentence.strip("$") or None


def _sentence(text: str, start: int) -> str:
    """What stands at `start`, to the end of its line or sentence. A formula may take more lines."""
    rest = text[start : start + _MAX_STATED_CHARS]
    rest = _FORMULA_ON_LINES.sub(lambda formula: " ".join(formula[0].split()), rest)
    sentence = _SENTENCE_END.split(rest, maxsplit=1)[0].strip(" \t\r*_`,;")
    return "" if sentence in (r"\[", r"\(") else sentence


def _last_formula_or_number(text: str) -> str | None:
    number, formula, time = _last(NUMBER, text), _last(_FORMULA, text), _last(_TIME, text)
    if time is not None and time.end() > max(
        found.end() if found else 0 for found in (number, formula)
    ):
        return time[0]
    # Two dollar signs around prose make no formula: "he pays $5 and gets $2 back".
    if formula is None or _has_prose(formula[0]) or (number and number.end() > formula.end()):
        return number[0] if number is not None else None
    return _formula_value(formula)


def _formula_value(formula: re.Match[str]) -> str | None:
    """What the formula says: the number of `x = 5` or `2 + 3 = 5`, else all of it."""
    content = next(group for group in formula.groups() if group is not None).strip()
    left_side, _, right_side = (part.strip() for part in content.rpartition("="))
    if NUMBER.fullmatch(right_side) and _LEFT_SIDE.fullmatch(left_side):
        return right_side
    return content or None


def _has_prose(text: str) -> bool:
    return _WORD.search(_LATEX_COMMAND.sub("", text)) is not None


def _as_choice(text: str) -> str | None:
    """The letter if `text` is one option: "C", "(c)", "C. 5 cm", "\\textbf{(C)} 5", "Option C"."""
    bare = _CHOICE_NAME.sub("", _CHOICE_MARKUP.sub("", text))
    choice = _CHOICE.match(bare)
    if choice is None or _CHOICE_LIST.match(bare):
        return None
    return (choice[1] or choice[2] or choice[3]).upper()


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for match in pattern.finditer(text):
        found = match
    return found
