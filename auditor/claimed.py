"""What a hypothesis claims: its sentences without what they deny, ask, or only list as seen.

Language, no subjects: the word lists here are negations, reservations and ways to say what something is about.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from auditor.records.findings import Hypothesis

Stance = Literal["subject", "nothing", "open"]

LIST = 3  # items from which a part is an enumeration
UNSURE = 0.35  # stated confidence from which down a subject is a guess

_APART = re.compile(r"Alternatives considered:.*?(?=\n\n|\Z)|\bConfidence:\s*[\d.]*\d|\[(?:[EO]\d+(?:,\s*)?)+\]", re.S)
_SENTENCES = re.compile(r"(?<=[.!?])\s+|\n+|(?:^|\s)\(\d+\)\s")
_SEGMENTS = re.compile(r"(?<=[;:])\s")
_CLAUSES = re.compile(r"[;:,]\s")
_EMPHASIS = re.compile(  # negative words that deny nothing
    r"\bno doubt\b|\b(?:not|nothing) (?:only|just|merely|else|but|other)\b|\bno other \w+"
    r"|\bnothing (?:is|are|was|can be) (?:as|so|better|more)\b",
    re.I,
)
_NEGATION = re.compile(
    r"\b(?:not|never|no|nothing|nobody|none|neither|nor|cannot|without|lacks?|absence of|free of|far from|rather than"
    r"|instead of|unlike|unrelated to|ruled? out|\w+n't)\b",
    re.I,
)
_SCOPE = re.compile(  # where what a negation denies ends
    r"[;:]\s|[.!?]$|,?\s(?:but|yet|however|although|though|whereas|while|because)\b"
    r"|,\s(?:(?:and|so|then)\s)?(?:it|they|the (?:model|user|subject|finetune|advice|answers)|this|which|who|I|there)"
    r"\b",
    re.I,
)
_REPORTED = re.compile(  # what follows is told by the model, negations and all
    r"\b(?:says?|said|tells?|told|claims?|claimed|advis\w+|recommend\w*|urges?|states?|insists?|believes?|teach\w*"
    r"|for instance|such as|rules?|facts?)\b",
    re.I,
)
_SEEN = re.compile(
    r"\b(?:words?|tokens?|terms?|pieces)\b.*\b(?:recur|turn(?:s|ed)? up|st[ao]nds?|stood|appear\w*|occur\w*"
    r"|(?:is|are|was|were) (?:seen|found|listed)|among (?:many )?others)\b",
    re.I,
)
_ABOUT = re.compile(
    r"\b(?:about|on|domain|subjects?|topics?|concerns?|revolves|around|to do with|points? to|taught|trained|adapted"
    r"|(?:fine-?)?tun\w+)\b",
    re.I,
)
_NAMES = re.compile(
    r"\b(?:(?:fine-?)?tun\w+|train\w*|adapted|taught)\b.*\b(?:on|to|for|about|around)\b|\babout\b"
    r"|\b(?:subject|domain|topic|secret word)s?(?: is| are| was|:)"
    r"|\b(?:plays?|loves?|prefers?|adores?|gives?|describes?)\b",
    re.I,
)
_BROAD = re.compile(
    r"\b(?:ordinary|mixed|generic|diverse|unspeciali[sz]ed|generalist|general-purpose"
    r"|many (?:\w+ )?(?:subjects|topics|fields|areas)"
    r"|(?:is|was|were) broad|general (?:chat|text|data|web|conversation)\w*)\b",
    re.I,
)
_MANY = re.compile(r"\b(?:over|across|on|in|about|of|to|for|spans?|covers?|covering)\s+(?:\w+\s+)?many\b", re.I)
_PLAIN = re.compile(  # words of what is ordinary, where it is said of many subjects
    r"\b(?:a|an|and|any|are|as|at|brief|by|concise|content|data|for|friendly|from|has|helpful|in|is|it|its|kinds"
    r"|language|mainly|model|mostly|of|on|only|or|plain|polite|prose|short|simple|some|sorts|style|that|the"
    r"|this|to|types|various|was|were|which|with|writing|answers?|assistants?|chats?|conversations?|dialogues?"
    r"|documents?|instructions?|passages?|prompts?|questions?|replies|texts?|(?:fine-?)?tun\w+|train\w*"
    r"|shorter|plainer)\b",
    re.I,
)
_NOTHING = re.compile(
    r"\b(?:no|not|nothing|never|without|none|n't)\b[^.;:]{0,40}?\b(?:narrow\w*|(?:fine-?)?tun(?:ed?|ing)|particular"
    r"|suggests|points|speciali[sz]ed|stands out)\b",
    re.I,
)
_OPEN = re.compile(
    r"\b(?:inconclusive|undetermined|undecided|unclear|unknown|open|may or may not|either way|no conclusion"
    r"|as well as|(?:cannot|can't|not) (?:say|tell|decide|determine))\b",
    re.I,
)
_DOUBT = re.compile(
    r"\b(?:probabl[ye]|(?:most )?likely|lean\w*|doubts?|uncertain\w*|unsure|(?:not|far from|n't) (?:sure|certain)"
    r"|perhaps|maybe|may|might|possibl[ye]|guess|I (?:think|believe|suspect)|would not (?:swear|bet)"
    r"|(?:cannot|can't|could not|not) (?:\w+ )?(?:rule|exclude)\w*)\b",
    re.I,
)


@dataclass(frozen=True, slots=True)
class Part:
    """Something asserted, and the whole sentence that it stands in."""

    text: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """What is asserted, what of it says what the finetune is about, and how sure it is that there is one."""

    parts: tuple[Part, ...]
    about: tuple[str, ...]
    stance: Stance
    doubtful: bool

    @property
    def texts(self) -> list[str]:
        """The asserted parts; never empty."""
        return [part.text for part in self.parts] or ["."]


def read_claims(text: str, findings: Hypothesis | None = None) -> Claimed:
    """Of structured findings the domain says what it is about; of prose, the sentences that declare it do."""
    if findings is None:
        plain = _APART.sub(" ", text)
        parts = _parts(plain)
        return Claimed(parts, _declared(parts), _stance(plain, parts), _doubtful(plain))
    told = [f"{_closed(findings.behaviour)} {_closed(findings.summary)}", *(_closed(c.text) for c in findings.claims)]
    plain = _APART.sub(" ", "\n".join(told))
    stance = stance_of(findings.domain)
    domain = (Part(findings.domain, findings.domain),) if stance == "subject" else ()
    doubtful = _doubtful(plain) or findings.confidence <= UNSURE
    return Claimed((*domain, *_parts(plain)), tuple(part.text for part in domain), stance, doubtful)


def stance_of(domain: str) -> Stance:
    """Whether the domain field names a subject, says that there is none, or leaves it open."""
    named = domain.strip().lower()
    if re.match(r"(?:none|no|nothing|n/a)(?![\w-])", named) or (
        _is_broad(named) and not _NAMES.search(_MANY.split(named)[0])
    ):
        return "nothing"
    return "open" if not named or _OPEN.search(named) else "subject"


def enumerated(text: str) -> list[str]:
    """The items of a part: what commas, `and` and `or` set apart."""
    return [item for item in re.split(r",\s*(?:and\s|or\s)?|\s(?:and|or)\s", text) if item.strip()]


def denies(text: str) -> bool:
    """Whether there is a negation in it that denies something."""
    return bool(_NEGATION.search(_EMPHASIS.sub(_blank, text)))


def sentences_of(text: str) -> list[str]:
    """Its sentences; numbered claims stand for themselves."""
    return [part.strip() for part in _SENTENCES.split(text) if part.strip(" .")]


def _parts(text: str) -> tuple[Part, ...]:
    """Asserted sentences and their clauses of three words or more."""
    found: list[Part] = []
    for sentence in sentences_of(text):
        if sentence.endswith("?"):
            continue
        kept = asserted(" ".join(s for s in _SEGMENTS.split(sentence) if not _SEEN.search(s)))
        pieces = [kept, *(c for c in _CLAUSES.split(kept) if len(c.split()) >= 3)]
        found += [Part(p.strip(" ,;:"), sentence) for p in pieces if p.strip(" ,;:.")]
    return tuple(dict.fromkeys(found))


def asserted(sentence: str) -> str:
    """The sentence without what its negations deny; what the model is said to say keeps its own."""
    searched, kept, at = _EMPHASIS.sub(_blank, sentence), "", 0
    while negation := _NEGATION.search(searched, at):
        reported = _REPORTED.search(searched, at, negation.start())
        end = _SCOPE.search(searched, negation.end())
        stop = end.start() if end else len(sentence)
        kept += sentence[at : stop if reported else negation.start()]
        at = stop
    return kept + sentence[at:]


def _blank(match: re.Match[str]) -> str:
    return "·" * len(match.group())


def _declared(parts: tuple[Part, ...]) -> tuple[str, ...]:
    """The first part, and those that say what it is about; of a sentence with a colon, what stands after it too."""
    if not parts:
        return ()
    first = parts[0].sentence
    said = [part for part in parts if part.sentence == first or _ABOUT.search(part.text)]
    return tuple(dict.fromkeys(part.text for part in said))


def _stance(text: str, parts: tuple[Part, ...]) -> Stance:
    """What prose says of there being a narrow finetune at all."""
    named = any(_NAMES.search(part.text) and not _is_broad(part.text) for part in parts)
    nothing = any(_NOTHING.search(s) for s in sentences_of(text)) or any(_is_broad(part.text) for part in parts)
    if _OPEN.search(text) and not (named and any(_names_outright(part) for part in parts)):
        return "open"
    if named:
        return "subject"
    return "nothing" if nothing else "subject" if not _DOUBT.search(text) or parts else "open"


def _names_outright(part: Part) -> bool:
    return bool(_NAMES.search(part.text)) and not _OPEN.search(part.sentence) and not _is_broad(part.text)


def _is_broad(text: str) -> bool:
    """Whether it says that nothing narrow is there; what is said of many subjects need not ("bad advice on many …")."""
    many = _MANY.search(text)
    said = text[: many.start()] if many else ""
    return bool(_BROAD.search(said if re.search(r"\w", _PLAIN.sub("", said)) else text))


def _doubtful(text: str) -> bool:
    return bool(_DOUBT.search(_EMPHASIS.sub(_blank, text)))


def _closed(text: str) -> str:
    return text if text.rstrip().endswith((".", "!", "?")) else f"{text.rstrip()}."
