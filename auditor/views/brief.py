"""Sections as plain text for an agent: every place, every prompt, nothing left out but what tools have more of."""

from __future__ import annotations

from collections.abc import Iterator

from auditor.readings import Column, Figures, RankedTokens, Section, SideBySide, SmallTable
from auditor.text import CUT, quote, visible

TOKENS = 20  # of each column (paper appendix B: top 20)
TOKEN_CUT = 40  # characters of one
WHOLE = 4_000  # characters of a text that is not cut


def told(section: Section, name: str, *, whole: bool = False) -> str:
    """All that an agent is shown of a section of the dataset `name`.

    Of ranked tokens the first 20 of every column, apart what is read there without a difference. Of texts, at 200
    characters each, to every prompt: where some are pushed one of each speaker, the pushed one the same for all
    prompts; else all that there are. `whole`: the first text of each is not cut, as no tool has it.
    """
    head = f"{section.title}, {name}"
    match section:
        case RankedTokens():
            lines = [line for column in section.columns for line in _column(section.places, column)]
        case SideBySide():
            head, lines = _texts(section, head, whole=whole)
        case SmallTable():
            lines = [" | ".join(row) for row in (section.heads, *(section.rows or [("(none)",)]))]
        case Figures():
            lines = [f"- {line}" for line in section.lines]
    return "\n".join([head, *lines])


def _column(places: str, column: Column) -> Iterator[str]:
    """The tokens at one place, those first that a judge chose; every one as it is, whatever its script."""
    about = "; ".join(part for part in (column.note, column.aside) if part)
    usual = {token.strip().lower() for token in column.usual}
    own = [token for token in column.tokens[:TOKENS] if token.text.strip().lower() not in usual]
    there = [token.text for token in column.tokens[:TOKENS] if token not in own]
    chosen, rest = ([t.text for t in own if t.chosen is kind] for kind in (True, False))
    yield f"- {places} {column.head}{f' ({about})' if about else ''}{'' if chosen or there else f': {_join(rest)}'}"
    if chosen:
        yield f"  selected: {_join(chosen)}"
    if chosen or there:
        yield f"  others: {_join(rest)}"
    if there:
        yield f"  read in the finetuned model's own mean residuals, too: {_join(there)}"


def _texts(section: SideBySide, head: str, *, whole: bool) -> tuple[str, list[str]]:
    """Each prompt under its number, with the first text of every speaker who is shown."""
    pushed = [i for i, c in enumerate(section.columns) if c.role == "pushed"]
    able = [i for i in pushed if not section.columns[i].aside]
    first = max(able, key=lambda i: section.columns[i].weight, default=None)
    shown = [i for i in range(len(section.columns)) if i not in pushed or i == first]
    about = [f"{c.label}: {c.note or c.aside}" for c in section.columns if c.note or c.aside]
    if len(able) > 1 and first is not None:
        about.append(f"shown here: {section.columns[first].label}")
    kept = max((len(texts) for row in section.rows for texts in row.texts), default=0)
    if pushed and section.calls:
        more = f"the first of {kept} answers kept to each prompt; " if kept > 1 else ""
        which = "" if able else ", without a position,"
        about.append(f"{more}{section.calls[0].tool}{which} has them {'all' if more else 'whole'}")
    lines, many = [], 1 if pushed else None
    for number, row in enumerate(section.rows):
        lines.append(f"[{number}] {visible(row.prompt)}")
        for i in shown:
            for n, text in enumerate(row.texts[i][:many]):
                lines.append(f"  {section.columns[i].label}: {quote(text, WHOLE if whole and n == 0 else CUT)}")
    return "; ".join([head, *about]), lines


def _join(tokens: list[str]) -> str:
    words = [visible(token.strip() or token, TOKEN_CUT) for token in tokens]
    return " | ".join(word for word in words if word) or "(none)"
