"""What else lies in a run's folder: copies of what the ledger holds, which can be made anew from it."""

from __future__ import annotations

import json
from typing import Any

from auditor.errors import BadFile
from auditor.files import write_atomically
from auditor.ledger.ledger import Ledger
from auditor.lines import add_line, read_lines
from auditor.records.results import AuditRecord

RUN, JOBS, AUDITS, TRANSCRIPTS, CALLS = "run.json", "jobs.jsonl", "audits.jsonl", "transcripts", "calls.jsonl"


def write_run(ledger: Ledger) -> None:
    """`run.json`: what was asked for, and what it was begun with."""
    body = json.dumps({**(ledger.request() or {}), **ledger.made_with()}, indent=1)
    path = ledger.folder / RUN
    if not path.is_file() or path.read_text("utf-8", errors="replace") != body:
        write_atomically(path, body)


def write_jobs(ledger: Ledger) -> None:
    """`jobs.jsonl`: what is to be made, for workers on other machines: no two of them may open one ledger."""
    path, specs = ledger.folder / JOBS, ledger.jobs.specs()
    if not path.is_file() or path.read_bytes().count(b"\n") != len(specs):
        write_atomically(path, "".join(spec + "\n" for spec in specs))


def write_audit(ledger: Ledger, record: AuditRecord) -> None:
    """A line of `audits.jsonl`, and the transcript. Raises BadFile."""
    write_transcript(ledger, record.id)
    add_line(ledger.folder / AUDITS, record.model_dump_json())


def write_transcript(ledger: Ledger, name: str) -> None:
    """`transcripts/NAME.json`: everything the agent was sent and answered."""
    folder = ledger.folder / TRANSCRIPTS
    folder.mkdir(exist_ok=True)
    write_atomically(folder / f"{name}.json", json.dumps(transcript(ledger, name), indent=1, default=str))


def transcript(ledger: Ledger, name: str) -> dict[str, Any]:
    """One audit's messages, with what is told beside them."""
    return {"id": name, **ledger.transcripts.about(name), "messages": ledger.transcripts.messages(name)}


def mend(ledger: Ledger) -> None:
    """Make anew what of these files is missing, cut, or older than the ledger. Raises BadFile."""
    write_run(ledger)
    records = {record.id: record.model_dump(mode="json") for record in ledger.jobs.records()}
    try:
        there = [line for _, line in read_lines(ledger.folder / AUDITS)]
    except BadFile:
        there = []
    if there != list(records.values()) and not _same(there, records):
        lines = "".join(record.model_dump_json() + "\n" for record in ledger.jobs.records())
        write_atomically(ledger.folder / AUDITS, lines)
    for name in records:
        if not _is_whole(ledger, name):
            write_transcript(ledger, name)


def _same(there: list[dict[str, Any]], records: dict[str, dict[str, Any]]) -> bool:
    """Whether the lines are the records, in whatever order they ended."""
    return len(there) == len(records) and all(records.get(str(line.get("id"))) == line for line in there)


def _is_whole(ledger: Ledger, name: str) -> bool:
    try:
        return bool(json.loads((ledger.folder / TRANSCRIPTS / f"{name}.json").read_bytes())["id"] == name)
    except (OSError, ValueError, KeyError, TypeError):
        return False
