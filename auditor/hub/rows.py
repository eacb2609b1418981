"""Rows of tables that a dataset has beside audits and grades: claims, readings, messages."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from auditor.audits.tables import Row
from auditor.readings import Figures, RankedTokens, Section, SideBySide, SmallTable
from auditor.records.results import AuditRecord


def claims(records: Iterable[AuditRecord]) -> Iterator[Row]:
    """One row a claim, and how it was held against what its audit had seen."""
    for record in records:
        for number, check in enumerate(record.checks, 1):
            yield {
                "id": record.id, "organism": record.organism, "agent": record.agent, "number": number,
                "claim": check.claim, "observations": ", ".join(check.observations), "holds": check.holds,
                "basis": check.basis, "echo": check.echo, "shared": check.shared, "problem": check.problem,
            }  # fmt: skip


def readings(organism: str, by_lens: Mapping[str, Sequence[Section]]) -> Iterator[Row]:
    """One row a token, text, line of a table or figure that a lens read, the best first at every place."""
    for lens, sections in by_lens.items():
        for section in sections:
            for row in _of_section(section):
                yield {**_row(organism, lens, section), **row}


def _row(organism: str, lens: str, section: Section) -> Row:
    layers = {call.args["layer"] for call in section.calls if isinstance(call.args.get("layer"), int)}
    return {
        "organism": organism, "lens": lens, "section": section.title, "kind": section.kind,
        "layer": layers.pop() if len(layers) == 1 else None, "place": "", "position": None, "rank": None, "text": "",
        "number": None, "number_is": "", "chosen": None, "speaker": "", "prompt": "",
    }  # fmt: skip


def _of_section(section: Section) -> Iterator[Row]:
    match section:
        case RankedTokens():
            for column in section.columns:
                head = column.head
                at = {"place": f"{section.places} {head}", "number_is": section.number,
                      "position": int(head) if section.places == "position" and head.isdigit() else None}  # fmt: skip
                for rank, token in enumerate(column.tokens, 1):
                    yield {**at, "rank": rank, "text": token.text, "number": token.number, "chosen": token.chosen}
        case SideBySide():
            for row in section.rows:
                for who, texts in zip(section.columns, row.texts, strict=True):
                    said = {"place": who.label, "speaker": who.role, "prompt": row.prompt}
                    yield from ({**said, "rank": rank, "text": text} for rank, text in enumerate(texts, 1))
        case SmallTable():
            for rank, cells in enumerate(section.rows, 1):
                named = json.dumps(dict(zip(section.heads, cells, strict=False)), ensure_ascii=False)
                yield {"rank": rank, "text": named}
        case Figures():
            yield from ({"rank": rank, "text": line} for rank, line in enumerate(section.lines, 1))


def messages(name: str, transcript: Mapping[str, Any]) -> Iterator[Row]:
    """One row a message of an audit: what the agent was told, said, called, and was answered."""
    for place, message in enumerate(transcript.get("messages") or ()):
        data = message["data"]
        content = data["content"] if isinstance(data["content"], str) else json.dumps(data["content"])
        calls = data.get("tool_calls") or []
        yield {
            "id": name, "place": place, "type": message["type"], "name": data.get("name") or "", "content": content,
            "tool_calls": json.dumps(calls, ensure_ascii=False) if calls else "",
        }  # fmt: skip
