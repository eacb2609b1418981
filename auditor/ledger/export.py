"""What else lies in a run's folder: copies of what the ledger holds, which can be made anew from it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from auditor.errors import BadFile
from auditor.files import replacing, write_atomically
from auditor.ledger.ledger import Ledger
from auditor.lines import add_line, read_lines, seal
from auditor.records.results import AuditRecord

RUN, JOBS, AUDITS, TRANSCRIPTS, CALLS = "run.json", "jobs.jsonl", "audits.jsonl", "transcripts", "calls.jsonl"


def write_run(ledger: Ledger) -> None:
    """`run.json`: what was asked for, and what it was begun with."""
    body = json.dumps({**(ledger.request() or {}), **ledger.made_with()}, indent=1)
    path = ledger.folder / RUN
    if not path.is_file() or path.read_text("utf-8", errors="replace") != body:
        write_atomically(path, body)


def write_jobs(ledger: Ledger) -> None:
    """`jobs.jsonl`: what is left to be made, for workers on other machines: no two of them may open one ledger."""
    with replacing(ledger.folder / JOBS) as part, part.open("w", encoding="utf-8") as stream:
        stream.writelines(spec + "\n" for spec in ledger.jobs.open_specs())


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
    if not _lines_are_right(ledger):
        with replacing(ledger.folder / AUDITS) as part, part.open("wb") as stream:
            stream.writelines(seal(record.encode()) + b"\n" for _, record in ledger.jobs.raw_records())
    for name, _ in ledger.jobs.raw_records():
        if not _ends_well(ledger.folder / TRANSCRIPTS / f"{name}.json"):
            write_transcript(ledger, name)


def _lines_are_right(ledger: Ledger) -> bool:
    """Whether `audits.jsonl` has each record, once, in whatever order they ended."""
    path, count, size = ledger.folder / AUDITS, *ledger.jobs.size_of_records()
    sealed = count * (len(seal(b"{}")) - len(b"{}") + 1)  # what each line has more than its record
    if path.is_file() and path.stat().st_size == size + sealed:
        return True
    try:
        there = {str(line.get("id")): (number, line) for number, line in read_lines(path)}
    except BadFile:
        return False
    records = list(ledger.jobs.raw_records())
    last = max((number for number, _ in there.values()), default=0)
    right = all(there.get(name, (0, None))[1] == json.loads(record) for name, record in records)
    return right and len(there) == len(records) == last


def _ends_well(path: Path) -> bool:
    """Whether a JSON file has its end: they are written whole or not at all, and cut only by somebody else."""
    try:
        with path.open("rb") as stream:
            stream.seek(-1, os.SEEK_END)
            return stream.read() == b"}"
    except OSError:
        return False
