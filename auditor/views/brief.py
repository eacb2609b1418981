"""Sections as plain text for an agent: what may be most telling first, as much as there is room for."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.methods.words import as_word
from auditor.readings import Column, Figures, RankedTokens, Section, SideBySide, SmallTable, TextColumn
from auditor.text import CUT, quote, visible

PLAIN_CUT = 60  # characters of a plain answer beside a pushed one: only to compare with
TOKENS = 20  # of each column
DEEPER = 60  # ranks that are searched for what recurs everywhere
PUSHED = 2  # columns of pushed texts that are shown, by turns
WHOLE = 5_500  # characters of texts that stand alone
MARGIN = 60  # characters of a row's prompt and label


def told(section: Section, name: str) -> str:
    """All that an agent is shown of a section of the dataset `name`, before it is cut to its room."""
    head = f"{section.title}, {name}"
    match section:
        case RankedTokens():
            chosen = any(token.chosen for column in section.columns for token in column.tokens)
            alone = len(section.columns) == 1
            lines = _by_column(section) if chosen or alone else _by_agreement(section)
        case SideBySide():
            head, lines = _texts(section, head)
        case SmallTable():
            lines = [" | ".join(row) for row in (section.heads, *section.rows)]
        case Figures():
            lines = [f"- {line}" for line in section.lines]
    return "\n".join([head, *lines])


def shortened(text: str, room: int) -> str:
    """Whole entries of a section up to `room` characters, and how many more there are."""
    head, *entries = text.split("\n[")
    kept = head[:room]
    for i, entry in enumerate(entries):
        if len(kept) + len(entry) > room:
            return f"{kept}\n({len(entries) - i} more prompts; read them with the tools)"
        kept += f"\n[{entry}"
    return kept if len(kept) == len(text) else f"{kept} … (cut; read the rest with the tools)"


def _by_column(section: RankedTokens) -> list[str]:
    """Columns of which some tokens are borne out, the weightiest first."""
    lines = []
    for column in sorted(section.columns, key=lambda c: (bool(c.aside), -c.weight)):
        head = f"- {section.places} {column.head}"
        if column.aside:
            lines.append(f"{head}: left out, {column.aside}")
            continue
        lines.append(f"{head} ({column.note})" if column.note else head)
        tokens = column.tokens[:TOKENS]
        together = [token.text for token in tokens if token.chosen]
        others = [token.text for token in tokens if not token.chosen and as_word(token.text)]
        lines += [f"  belong together: {_join(together)}"] if together else []
        lines += [f"  {'others' if together else 'tokens'}: {_join(others)}"] if others else []
    return lines


def _by_agreement(section: RankedTokens) -> list[str]:
    """Tokens by the columns that share them and by how high they rank there."""
    read = [column for column in section.columns if not column.aside]
    ranks: dict[str, dict[str, int]] = {}
    for column in read:
        for rank, token in enumerate(column.tokens[:TOKENS]):
            ranks.setdefault(token.text.strip(), {})[column.head] = rank
    ranked = sorted(ranks.items(), key=lambda item: (-sum(TOKENS - rank for rank in item[1].values()), item[0]))
    shared: dict[tuple[str, ...], list[str]] = {}
    for word, at in ranked[: 2 * TOKENS]:
        shared.setdefault(tuple(c.head for c in read if c.head in at), []).append(word)
    groups = sorted(shared.items(), key=lambda item: -len(item[0]))
    lines = [f"- at {section.places} {', '.join(at)}: {_join(words)}" for at, words in groups]
    if deeper := _everywhere(read, set(ranks)):
        lines.append(f"- at all of them, further down: {_join(deeper)}")
    lines += [f"- {section.places} {c.head}: left out, {c.aside}" for c in section.columns if c.aside]
    return lines


def _everywhere(columns: Sequence[Column], known: set[str]) -> list[str]:
    """Tokens beyond the first ones that every column has, in the order of the first."""
    if len(columns) < 2:
        return []
    first, *others = [[token.text.strip() for token in column.tokens[:DEEPER]] for column in columns]
    return [word for word in dict.fromkeys(first) if word not in known and all(word in o for o in others)][:TOKENS]


def _texts(section: SideBySide, head: str) -> tuple[str, list[str]]:
    """Each prompt with its texts; of pushed ones one a row, from the first columns by turns."""
    pushed = [i for i, column in enumerate(section.columns) if column.role == "pushed"]
    others = [i for i in range(len(section.columns)) if i not in pushed]
    about = "; ".join(f"{c.label}: {c.note or c.aside}" for c in section.columns if c.note or c.aside)
    kept = max((len(texts) for row in section.rows for texts in row.texts), default=0)
    head = ", ".join(part for part in (head, about) if part) + (f"; texts kept a prompt: {kept}" if pushed else "")
    turns = [i for i in pushed if not section.columns[i].aside][:PUSHED]
    many = 1 if pushed else max(1, WHOLE // max(1, len(section.rows) * (CUT + MARGIN)))
    lines = []
    for number, row in enumerate(section.rows):
        lines.append(f"[{number}] {visible(row.prompt)}")
        for i in others:
            cut = PLAIN_CUT if pushed else CUT
            lines += [_said(section.columns[i], text, cut) for text in row.texts[i][:many]]
        if turns:
            i = turns[number % len(turns)]
            lines += [_said(section.columns[i], text, CUT) for text in row.texts[i][:1]]
    return head, lines


def _said(column: TextColumn, text: str, cut: int) -> str:
    return f"  {column.label}: {quote(text, cut)}"


def _join(tokens: Sequence[str]) -> str:
    words = [visible(token.strip(), 40) for token in tokens]
    return " | ".join(word for word in words if word)
