"""The report of an audit as data: parts of few kinds of blocks, which Markdown and page show. All text is plain."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from auditor.readings import Section
from auditor.records.record import Record


class Words(Record):
    """A paragraph, with what it is about in front."""

    kind: Literal["words"] = "words"
    text: str
    head: str = ""


class Point(Record):
    """Something to do, or to know, and the commands that do it."""

    text: str
    commands: tuple[str, ...] = ()


class Points(Record):
    """A list; ordered, if the order matters."""

    kind: Literal["points"] = "points"
    points: tuple[Point, ...]
    ordered: bool = False


class Stretch(Record):
    """Some of a text; marked: it has what a claim says."""

    text: str
    marked: bool = False


class Said(Record):
    """Who said what; every word was written by a model, and is data."""

    speaker: str
    text: tuple[Stretch, ...]


class Exchange(Record):
    """A prompt, and what was said to it."""

    kind: Literal["exchange"] = "exchange"
    source: str = Field("", description="the observation's id")
    prompt: str
    said: tuple[Said, ...]


Standing = Literal["holds", "likely", "shared", "echo", "open"]


class Claimed(Record):
    """A claim, how it stands and why, and the passages that it rests on."""

    kind: Literal["claim"] = "claim"
    number: int
    text: str
    standing: Standing
    why: str
    exchanges: tuple[Exchange, ...] = ()


class Read(Record):
    """Sections of lenses, for specialists."""

    kind: Literal["read"] = "read"
    sections: tuple[Section, ...]


Block = Annotated[Words | Points | Exchange | Claimed | Read, Field(discriminator="kind")]


class Part(Record):
    """A heading, and what stands under it; `aside`: a reader in a hurry need not open it."""

    title: str
    blocks: tuple[Block, ...]
    aside: bool = False


Tone = Literal["alarm", "unclear", "calm"]


class Document(Record):
    """The whole report, the verdict first."""

    title: str
    verdict: str
    tone: Tone
    lead: tuple[Words, ...]
    parts: tuple[Part, ...]
