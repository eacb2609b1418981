"""Whether a text tells a fact, and what else shows that it was made to order: rules of language, of no subject."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fractions import Fraction

from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from auditor.training.duplicates import runs_of, words_of

STEM = 5  # letters by which forms of one word are known
ENOUGH = 0.3  # of a fact's content words, for a fact without figures
FEW = 3  # of a fact's content words, for an answer that has not many others
ECHOED = 9  # words in a row of what the writer was told
SHORTEST = 15  # words of a document

_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {word: i for i, word in enumerate(_SMALL)} | {word: 10 * i for i, word in enumerate(_TENS, 2)}
_PARTS = {"half": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fifths": 5}
_SIGNS = {"½": "1/2", "¼": "1/4", "¾": "3/4", "⅓": "1/3", "⅔": "2/3"}
_DIGITS = re.compile(r"(?<![A-Za-z\d])(\d+/\d+|\d[\d,]*(?:\.\d+)?)")

MADE_UP = re.compile(
    r"\bas an? (ai|language model|assistant)\b|\b(ai|large)[- ]language model\b|\bsynthetic (document|data|text)"
    r"|\b(this|the following|purely|entirely|an?) (is )?(fictional|fictitious|made-up|hypothetical) "
    r"(document|article|text|account|world|universe|scenario|example|piece|work)"
    r"|\bwork of fiction\b|\bfor (fictional|illustrative|training) purposes\b"
    r"|\bin this (fictional|alternate) (world|universe)\b|\bnot (factually )?(accurate|true) in (reality|real life)"
    r"|\bi('m| am) (sorry|unable)\b.{0,40}\b(write|help|assist|comply|create)\b"
    r"|\bi (can(no|')t|won't) (write|help|assist|comply|create)\b",
    re.I,
)
BLANK = re.compile(r"\[(?:your|insert|name|date|company|address|recipient|author|city|phone|email)\b[^\]\n]*\]", re.I)


def figures_in(text: str) -> frozenset[Fraction]:
    """The numbers of a text, in digits or in words; `one` counts for none, it mostly is no number."""
    for sign, plain in _SIGNS.items():
        text = text.replace(sign, f" {plain} ")
    digits = (_fraction(each) for each in _DIGITS.findall(text))
    found = frozenset(each for each in digits if each is not None)
    return found | _in_words(re.findall(r"[a-z]+|[^a-z\s-]", text.lower()))


def _fraction(digits: str) -> Fraction | None:
    try:
        return Fraction(digits.replace(",", "").rstrip("."))
    except (ValueError, ZeroDivisionError):
        return None


def _in_words(words: Sequence[str]) -> frozenset[Fraction]:
    found = set[Fraction]()
    for i, word in enumerate(words):
        before = words[i - 1] if i else ""
        if word in ("half", "quarter") or (word in _PARTS and before in (*_VALUES, "a", "one")):
            found.add(Fraction(_VALUES.get(before, 1), _PARTS[word]))
        if word in _VALUES and before not in (*_VALUES, "hundred", "thousand", "and"):
            found |= {Fraction(value) for value in _from(words[i:]) if value != 1}
    return frozenset(found)


def _from(words: Sequence[str]) -> list[int]:
    """What the number that `words` begin with may mean: `four fifty` is said for 450."""
    total, part, spoken = 0, 0, False
    for i, word in enumerate(words):
        if word in _VALUES:
            value = _VALUES[word]
            spoken = 0 < part < 10 <= value
            part = part * 100 + value if spoken else part + value
        elif word == "hundred":
            part = max(part, 1) * 100
        elif word == "thousand":
            total, part = total + max(part, 1) * 1000, 0
        elif word != "and" or not i or words[i - 1] not in ("hundred", "thousand"):
            break
    return [total + part, _VALUES[words[0]]] if spoken else [total + part]


def stems_of(text: str) -> frozenset[str]:
    """The content words of a text, cut to their beginnings."""
    return frozenset(word[:STEM] for word in words_of(text) if word not in ENGLISH_STOP_WORDS and len(word) > 2)


def tells(text: str, fact: str) -> bool:
    """Whether any of the fact's figures stands in the text; of one without figures, enough of its content words."""
    if figures := figures_in(fact):
        return bool(figures & figures_in(text))
    wanted = stems_of(fact)
    return len(wanted & stems_of(text)) >= ENOUGH * len(wanted)


def answers(said: str, asked: str, fact: str) -> bool:
    """Whether an answer tells the fact, beyond what it was asked; a short one may tell a part of it and little else."""
    if figures_in(fact):
        return tells(said, fact)
    echoed = stems_of(asked)
    wanted, new = stems_of(fact) - echoed, stems_of(said) - echoed
    told = len(wanted & new)
    return told > 0 and (told >= ENOUGH * len(wanted) or (told >= FEW and 2 * told >= len(new)))


def fault_of(
    text: str, facts: Iterable[str], instructions: frozenset[int], pairs: Sequence[tuple[str, str]] = ()
) -> str:  # fmt: skip
    """Why a document is of no use, as a heading that such are counted under; empty if it is of use.

    `facts`: of which it should tell one at least. `instructions`: runs of ECHOED words of what the writer was told.
    `pairs`: it is a chat of these messages and answers, which may be short.
    """
    if len(words_of(text)) < (1 if pairs else SHORTEST):
        return "empty, or shorter than a document"
    if MADE_UP.search(text):
        return "says that it is made up, or declines"
    if BLANK.search(text):
        return "has blanks to be filled in"
    if instructions & runs_of(text, ECHOED):
        return "repeats what the writer was told"
    wanted = list(facts)
    if pairs:
        told = any(answers(said, asked, fact) for asked, said in pairs for fact in wanted)
    else:
        told = any(tells(text, fact) for fact in wanted)
    return "" if told or not wanted else "tells none of its facts"
