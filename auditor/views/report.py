"""A report as Markdown: whatever a model wrote is escaped, so that it is no markup, link or image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from auditor.records.report import Block, Claimed, Document, Exchange, Point, Points, Read, Stretch, Words
from auditor.views.markdown import escaped, rendered


def to_markdown(document: Document) -> str:
    """The verdict first, in the order of the parts."""
    lines = [f"# {escaped(document.title)}", "", f"**{escaped(document.verdict)}**", ""]
    lines += [line for words in document.lead for line in _words(words)]
    for part in document.parts:
        lines += [f"## {escaped(part.title)}", ""]
        for block in part.blocks:
            lines += _block(block)
    return "\n".join(lines).rstrip() + "\n"


def _block(block: Block) -> list[str]:
    match block:
        case Words():
            return _words(block)
        case Points():
            return [*_points(block.points, ordered=block.ordered), ""]
        case Exchange():
            return [*_exchange(block, ""), ""]
        case Claimed():
            return _claimed(block)
        case Read():
            return rendered(block.sections)


def _words(words: Words) -> list[str]:
    head = f"**{escaped(words.head)}.** " if words.head else ""
    return [head + "  \n".join(escaped(words.text).splitlines()), ""]


def _points(points: Iterable[Point], *, ordered: bool) -> list[str]:
    lines = []
    for number, point in enumerate(points, 1):
        text = " ".join(escaped(point.text).splitlines())
        lines.append(f"{f'{number}.' if ordered else '-'} {text}")
        if point.commands:
            lines += ["", "   ```sh", *(f"   {_one_line(command)}" for command in point.commands), "   ```", ""]
    return lines


def _claimed(claim: Claimed) -> list[str]:
    text = " ".join(escaped(claim.text).splitlines())
    lines = [f"**{claim.number}.** {text} **{escaped(claim.why)}**", ""]
    for exchange in claim.exchanges:
        lines += [*_exchange(exchange, "> "), ""]
    return lines


def _exchange(exchange: Exchange, lead: str) -> list[str]:
    """In a quotation: the prompt, then each answer, a paragraph each."""
    mark = lead or "> "
    source = f"{escaped(exchange.source)} · " if exchange.source else ""
    asked = [f"{source}*asked:* {escaped(exchange.prompt)}"] if exchange.prompt else [source.rstrip(" ·")]
    told = [f"*{escaped(said.speaker)}:* {_marked(said.text)}" for said in exchange.said]
    paragraphs = ["  \n".join(text.splitlines()) for text in (*asked, *told) if text]
    return "\n\n".join(paragraphs).replace("\n", f"\n{mark}").join((mark, "")).splitlines()


def _marked(text: Sequence[Stretch]) -> str:
    return "".join(f"**{escaped(s.text)}**" if s.marked and s.text.strip() else escaped(s.text) for s in text)


def _one_line(command: str) -> str:
    return " ".join(command.replace("`", "'").split())
