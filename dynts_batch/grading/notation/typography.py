# ruff: noqa: RUF001  letters and signs that look alike are what this file is about
r"""One spelling for what can be typed in many ways: digits, Unicode mathematics, LaTeX commands.

`fold` takes any text and replaces characters. `typeset` takes a short answer and also replaces
commands, so that later steps need to know only one of each kind (`\dfrac`, `\tfrac` -> `\frac`).
In its result `~` is a space that was meant (`\,`, the end of a `\text{}`), `$` is the currency and
`°` a degree. Knows nothing about numbers or mathematics.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

_SYMBOLS = str.maketrans(
    {
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"),
        **dict.fromkeys("\u00b7\u22c5\u2219", r"\cdot "),
        **{"×": r"\times ", "÷": "/", "∕": "/", "±": r"\pm ", "∓": r"\mp ", "∞": r"\infty ",
           "∠": r"\angle "},
        **{"≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ",
           "∶": ":"},
        **{"∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∖": r"\setminus ", "∅": r"\emptyset "},
        **{"ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}",
           "ℂ": r"\mathbb{C}"},
        **{"π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ",
           "λ": r"\lambda "},
        **{"⟨": r"\langle ", "⟩": r"\rangle ", "º": "°", "˚": "°", "µ": "μ", "\u2126": "ohm",
           "\u03a9": "ohm", "Å": "angstrom"},
        **{"٫": ".", "٬": ",", "،": ",", "؛": ";", "٪": "%", "、": ",", "。": ".", "❘": "|",
           "∣": "|"},
        **{"‘": "'", "’": "'", "“": '"', "”": '"'},
    }
)  # fmt: skip
_SUPERSCRIPTS = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱ]+")
_SUBSCRIPTS = re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋]+")
_ROOT = re.compile(r"√\s*(?:\(([^()]*)\)|(\d+(?:\.\d+)?|[A-Za-z]))")
_VULGAR = re.compile("(?<=[0-9])(?=[¼½¾⅐-⅞↉])")
_DIGIT = re.compile(r"(?![0-9])\d")

_COMMANDS = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac"), r"\frac"),
    **dict.fromkeys(("dbinom", "tbinom"), r"\binom"),
    **dict.fromkeys(("leq", "leqslant", "leqq"), r"\le "),
    **dict.fromkeys(("geq", "geqslant", "geqq"), r"\ge "),
    **dict.fromkeys(("mid", "vert", "lvert", "rvert"), "|"),
    **dict.fromkeys(("ldots", "cdots", "dots", "dotsc"), "..."),
    **dict.fromkeys(("quad", "qquad", "thinspace", "enspace", "space", "rm", "bf", "it"), "~"),
    **dict.fromkeys(("degree", "degrees", "textdegree"), "°"),
    **dict.fromkeys(("textdollar", "dollar"), "$"),
    **{"neq": r"\ne ", "lt": "<", "gt": ">", "div": "/", "ast": "*", "colon": ":", "percent": "%",
       "euro": "€"},
    **{"pounds": "£", "textsterling": "£", "yen": "¥", "varnothing": r"\emptyset ",
       "infin": r"\infty "},
    **{"lbrace": r"\{", "rbrace": r"\}", "langle": "(", "rangle": ")", "prime": "'",
       "smallsetminus": r"\setminus "},
}  # fmt: skip
_COMMAND = re.compile(rf"\\({'|'.join(sorted(_COMMANDS, key=len, reverse=True))})(?![A-Za-z])[ ]*")
_NOTHING = re.compile(
    r"\\(?:left|right|middle|displaystyle|textstyle|limits|[bB]igg?[lr]?)(?![A-Za-z])"
    r"|\\[!()]|(?<!\\)\\[\[\]]"
)
_FONT = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:bf|rm|it|sf|tt|normal)|mbox|hbox"
    r"|operatorname\*?|bold(?:symbol)?|bm)"
    r"(?![A-Za-z])\s*(?:\{((?:[^{}]|\{[^{}]*\})*)\}|([A-Za-z0-9]))"
)
_SPACE = re.compile(r"(?<!\\)\\[,;: ]|~")  # not the second half of a `\\` that ends a row
_DEGREE = re.compile(r"[ ~]*\^[ ]*(?:\\circ(?![A-Za-z])|\{[ ~]*\\circ[ ~]*\})")
_BARE_ARGUMENT = re.compile(r"(\\sqrt|\\frac(?:\s*\{[^{}]*\})?)\s*([0-9A-Za-z])")
_BARE_PAIR = re.compile(r"\\frac\s*([0-9])\s*([0-9])")
_POWER = re.compile(r"(?<=[\w)])\*\*(?=[\w({-])")
_BEFORE_SCRIPT = re.compile(r"[ ~]+(?=[\^_])")
_SPACES = re.compile(r"[ ~]*~[ ~]*")
_FULL_STOP = re.compile(r"(?<!\.)\.$")


def fold(text: str) -> str:
    """`text` with ASCII digits, and with Unicode's mathematical signs as LaTeX."""
    if text.isascii():
        return text
    text = _SUPERSCRIPTS.sub(lambda found: f"^{{{_plain(found[0])}}}", text)
    text = _SUBSCRIPTS.sub(lambda found: f"_{{{_plain(found[0])}}}", text)
    text = _ROOT.sub(lambda found: rf"\sqrt{{{found[1] or found[2]}}}", text)
    text = _VULGAR.sub(" ", text).translate(_SYMBOLS)
    text = _plain(text).replace("\u2044", "/").translate(_SYMBOLS)
    return _DIGIT.sub(lambda found: str(unicodedata.decimal(found[0])), text)


@lru_cache(maxsize=256)
def typeset(text: str) -> str:
    r"""A short answer in one spelling.

    "\text{18 apples}" and "18\,\mathrm{apples}." both become "18~apples".
    """
    text = _without_math_signs(fold(text).replace("{,}", ",").replace("\\%", "%"))
    text = _COMMAND.sub(lambda found: _COMMANDS[found[1]], _NOTHING.sub("", text))
    text = _DEGREE.sub("°", _SPACE.sub("~", text))
    for _ in range(3):  # fonts in fonts
        text = _FONT.sub(lambda found: f"~{found[1] or found[2] or ''}~", text)
    text = _BARE_PAIR.sub(r"\\frac{\1}{\2}", text)
    for _ in range(2):  # both arguments of \frac 1x
        text = _BARE_ARGUMENT.sub(r"\1{\2}", text)
    text = _POWER.sub("^", text).replace("**", "").replace("`", "")
    text = _SPACES.sub("~", " ".join(_BEFORE_SCRIPT.sub("", text).split()))
    return _without_braces(_FULL_STOP.sub("", text.strip("~ ")).rstrip("~ "))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).replace("\u2212", "-")


def _without_math_signs(text: str) -> str:
    r"""`text` without the `$` around mathematics. `\$` becomes `$`.

    A `$` before a number that is never closed is the currency, and stays.
    """
    parts = re.split(r"(?<!\\)\$+", text)
    if len(parts) % 2:
        return "".join(parts).replace("\\$", "$")
    signs = iter(("$",))
    joined = parts[0]
    for part in parts[1:]:
        joined += next(signs, "") + part if part.lstrip()[:1].isdigit() or part[:1] == "." else part
    return joined.replace("\\$", "$")


def _without_braces(text: str) -> str:
    """`{x}` becomes x if the two braces are a pair."""
    while text.startswith("{") and text.endswith("}"):
        depth = 0
        for position, char in enumerate(text):
            depth += (char == "{") - (char == "}")
            if depth == 0 and position < len(text) - 1:
                return text
        text = text[1:-1].strip("~ ")
    return text
