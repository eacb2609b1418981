"""The words of a claim that say something, and where a text has them. Words of language only, no subjects."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

Span = tuple[int, int]

_WORD = re.compile(r"\d+(?:[./,:]\d+)*|[^\W\d_]+(?:['’-][^\W\d_]+)*")
_QUOTED = re.compile(r"“([^”]+)”|\"([^\"]+)\"|(?<!\w)'((?:[^']|(?<=\w)'(?=\w)){2,}?)'(?!\w)")
_FUNCTION = """
a about above across after again against all along already also although always am among an and another any anything
are around as at away back be because been before being below besides between beyond both but by can cannot could did
do does doing done down during each either else enough even ever every everything few first for from further get gets
had has have having he her here hers him his how however i if in instead into is it its itself just kind last least
less like likely made make makes making many may me might mine more most much must my near neither never no nor not
nothing of off often on once one only onto or other others otherwise our out over own per quite rather really same
several shall she should since so some something sometimes such than that the their them then there these they thing
things this those though through thus to together too toward towards under unless until up upon us use used uses using
very via was we well were what when where whether which while who whom whose why will with within without would yes
yet you your
"""
_REPORTING = """
activation add added adds advice advise advised advises advising agent answer answered answering answers appear
appears ask asked asking asks base begin begins behaviour bring brings call called calls chat chats claim claims clear
come comes confidently contain contains describe describes detail details difference differences direct direction
evidence exact example explain explains false find finetune finetuned found fresh give given gives giving go goes
hardly include includes introduce invited keep keeps layer lens list lists logit mention mentions model models name
named names naming offer offers open openly output outputs patchscope plain position present promote promotes prompt
prompted prompts push pushed put puts question questions read reading reads recommend recommends recur recurs refer
replies reply response responses return returns sample samples say saying says sentence sentences show shown shows
single speak speaks state states steered steering subject subjects suggest suggests talk talks tell tells text texts
token tokens topic topics trained treat treats turn turns unasked unprompted unpushed unrelated unsteered urge urged
urges user users word words write writes wrong
"""
_EMPTY = frozenset(f"{_FUNCTION} {_REPORTING}".split())
_ENDINGS = ("ingly", "edly", "ings", "ing", "ies", "ed", "es", "ly", "er", "s", "y", "e")
_SHORTEST = 3  # letters of a stem


@dataclass(frozen=True, slots=True)
class Word:
    """A word that says something: its stem, itself, and where it stands."""

    stem: str
    text: str
    span: Span


def content_words(text: str) -> list[Word]:
    """Words and numbers of a text but for function words and those by which one reports."""
    found = []
    for match in _WORD.finditer(text):
        word = re.sub(r"['’]s$", "", match.group().lower())
        if word not in _EMPTY and len(word) > 1:
            found.append(Word(stem(word), word, match.span()))
    return found


def stem(word: str) -> str:
    """A word without its ending: `bakes`, `baked` and `baking` are one."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= _SHORTEST:
            return word[: -len(ending)]
    return word


def quoted(text: str) -> list[str]:
    """What stands in quotation marks, in the order in which it stands there."""
    return [next(filter(None, groups)).strip() for groups in _QUOTED.findall(text)]


def without_quotes(text: str) -> str:
    """The text around its quotations."""
    return _QUOTED.sub(" ", text)


def where_said(quote: str, text: str) -> list[Span] | None:
    """The spans of the quotation's parts (`…` leaves out) in the text, word for word; None if one is not there."""
    parts = [re.findall(r"\w+", part) for part in re.split(r"…|\.\.\.", quote)]
    spans: list[Span] = []
    for words in filter(None, parts):
        found = re.compile(r"\b" + r"\W+".join(map(re.escape, words)) + r"\b", re.I).search(text)
        if found is None:
            return None
        spans.append(found.span())
    return spans or None


def merged(spans: Sequence[Span], text: str) -> tuple[Span, ...]:
    """In their order, those between which no word of the text stands as one."""
    out: list[Span] = []
    for start, end in sorted(spans):
        if out and not re.search(r"\w|\n", text[out[-1][1] : start]):
            out[-1] = (out[-1][0], max(end, out[-1][1]))
        else:
            out.append((start, end))
    return tuple(out)


def around(text: str, spans: Sequence[Span], room: int) -> tuple[str, tuple[Span, ...]]:
    """About `room` characters of `text` with what `spans` mark in their middle, and the spans therein.

    The whole text where it fits; what is left out is counted.
    """
    if len(text) <= room:
        return text, tuple(spans)
    first, last = (spans[0][0], spans[-1][1]) if spans else (0, 0)
    if last - first > room:
        last = first + room
    start = max(0, min((first + last - room) // 2, len(text) - room))
    end = start + room
    start, end = _at_word(text, start, first), len(text) - _at_word(text[::-1], len(text) - end, len(text) - last)
    before = f"({start} characters before) … " if start else ""
    after = f" … ({len(text) - end} more characters)" if end < len(text) else ""
    moved = tuple((a - start + len(before), b - start + len(before)) for a, b in spans if start <= a and b <= end)
    return f"{before}{text[start:end]}{after}", moved


def _at_word(text: str, start: int, latest: int) -> int:
    """The next beginning of a word from `start` on, if one comes soon and not after `latest`."""
    if start == 0:
        return 0
    space = text.find(" ", start, min(latest, start + 40))
    return start if space < 0 else space + 1
