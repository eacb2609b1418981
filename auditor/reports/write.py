"""`report.html`: a run in one file, written as it is read, so that memory does not grow with its audits."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from auditor.comparison.compare import compare
from auditor.comparison.scores import Run
from auditor.files import replacing
from auditor.records.comparison import Comparison
from auditor.records.results import AuditRecord
from auditor.reports import page
from auditor.reports.readings import Readings

Transcripts = Callable[[str], Mapping[str, Any]]


def write_report(run: Run, transcripts: Transcripts, readings: Readings, path: Path) -> Comparison:
    """The whole run: comparison, what was read, every audit. Raises BadFile if it cannot be written."""
    comparison = compare([run])
    with replacing(path) as part, part.open("w", encoding="utf-8", errors="backslashreplace") as stream:
        organisms = about_organisms(run, comparison)
        stream.write(page.head(run.name, comparison, live=False, organisms=organisms, audits=bool(run.records)))
        for i, organism in enumerate(organisms):
            sections, notes = readings(organism["name"])
            _pack(stream, f"organism-{i}", page.organism_fragment(organism["name"], sections, notes))
        _write_audits(stream, run.records, transcripts)
        stream.write(f'<script type="application/json" id="index">{page.as_data(index_of(run.records))}</script>\n')
        stream.write(page.foot())
    return comparison


def write_comparison(comparison: Comparison, path: Path) -> None:
    """The comparison alone. Raises BadFile if it cannot be written."""
    title = ", ".join(run.name for run in comparison.runs)
    with replacing(path) as part:
        text = page.head(title, comparison, live=False, organisms=[], audits=False) + page.foot()
        part.write_text(text, "utf-8", errors="backslashreplace")


def about_organisms(run: Run, comparison: Comparison) -> list[dict[str, Any]]:
    """Each organism of a run: its truth in a line, and what each contender got on it."""
    grader = comparison.graders[0] if comparison.graders else ""
    found: dict[str, dict[str, Any]] = {}
    for record in run.records:
        about = [record.family, f"of {record.base}" if record.base else "", truth_of(run, record.organism)]
        found.setdefault(
            record.organism, {"name": record.organism, "about": ", ".join(filter(None, about)), "means": []}
        )
    for cell in comparison.cells:
        if cell.grader == grader and cell.organism in found:
            found[cell.organism]["means"].append((cell.contender, cell.mean))
    return list(found.values())


def truth_of(run: Run, organism: str) -> str:
    """What it was trained on, as its card says."""
    told = (run.request.get("organisms") or {}).get(organism)
    try:
        card = json.loads(told["text"]) if isinstance(told, dict) else {}
    except (KeyError, ValueError):
        return ""
    return str(card.get("topic") or card.get("description") or "")


def _write_audits(stream: TextIO, records: Iterable[AuditRecord], transcripts: Transcripts) -> None:
    """Each packed; a message that several were sent stands once."""
    folded: set[str] = set()

    def fold(told: Mapping[str, Any]) -> str:
        name = "m-" + hashlib.sha256(json.dumps(told["data"]["content"]).encode()).hexdigest()[:20]
        if name not in folded:
            folded.add(name)
            _pack(stream, name, page.message_fragment(told))
        return name

    for number, record in enumerate(records):
        _pack(stream, f"audit-{number}", page.audit_fragment(record, transcripts(record.id), fold))


def _pack(stream: TextIO, name: str, html: str) -> None:
    packed = base64.b64encode(zlib.compress(html.encode("utf-8", "backslashreplace"), 1)).decode()
    stream.write(f'<script type="text/plain" id="{name}">{packed}</script>\n')


def index_of(records: Sequence[AuditRecord]) -> list[list[Any]]:
    """What the table of audits is drawn from."""
    return [page.row_of(number, record) for number, record in enumerate(records)]
