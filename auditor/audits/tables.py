"""A run as other programs read it: tables (a row for each audit, each grade, and each LLM call), lines, logs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from auditor.audits.runs import records_of
from auditor.errors import UsageError
from auditor.files import replacing, write_atomically
from auditor.ledger.export import AUDITS, CALLS, TRANSCRIPTS, transcript
from auditor.ledger.ledger import Ledger, is_run
from auditor.records.results import AuditRecord

Row = dict[str, Any]
_APART = {"grades", "checks", "findings", "seconds", "tokens", "judges", "evidence", "notes", "sources"}


def write(run: Path, to: Path, form: str) -> list[Path]:
    """The files that were written. Raises UsageError for an old run's calls, or if a package is missing."""
    if form == "jsonl":
        return _write_lines(run, to)
    if form == "eval":
        return _write_logs(run, to)
    tables = {
        "audits": audits_table(records_of(run)),
        "grades": grades_table(records_of(run)),
        "calls": calls_table(run),
    }
    written = []
    for name, rows in tables.items():
        path = to / f"{name}.{form}"
        (write_csv if form == "csv" else write_parquet)(path, list(rows))
        written.append(path)
    return written


def audits_table(records: Iterable[AuditRecord]) -> Iterator[Row]:
    """One row an audit; nested parts are flat, or counted."""
    for record in records:
        judges = record.judges
        yield {
            **{key: value for key, value in record.model_dump(mode="json").items() if key not in _APART},
            **{f"{side}_source": next(iter(record.sources.get(side, ())), None) for side in ("base", "finetuned")},
            "confidence": record.findings.confidence if record.findings else None,
            "claims": len(record.checks),
            "claims_held": sum(check.holds for check in record.checks),
            "tokens_in": record.tokens.input,
            "tokens_out": record.tokens.output,
            "judges_tokens": judges.tokens.input + judges.tokens.output if judges and judges.tokens else None,
            "judges_cost_usd": judges.cost_usd if judges else None,
            "seconds_agent": record.seconds.get("agent"),
            "seconds_grading": record.seconds.get("grading"),
            "notes": "; ".join(record.notes),
        }


def grades_table(records: Iterable[AuditRecord]) -> Iterator[Row]:
    """One row a grade."""
    for record in records:
        for grade in record.grades:
            yield {
                "id": record.id, "organism": record.organism, "family": record.family, "agent": record.agent,
                "budget": record.budget, "repeat": record.repeat, "status": record.status, "grader": grade.grader,
                "score": grade.score, "reasoning": grade.reasoning, "details": json.dumps(grade.details, default=str),
            }  # fmt: skip


def calls_table(run: Path) -> Iterator[Row]:
    """One row an attempt to call an LLM, without what was sent; none of an old run's."""
    if not is_run(run):
        return
    with Ledger.read(run) as ledger:
        for call in ledger.calls.all():
            yield {key: value for key, value in call.items() if key not in ("sent", "tools", "reply", "options")}


def _write_lines(run: Path, to: Path) -> list[Path]:
    if not is_run(run):
        raise UsageError(f"{run} is of a version without a ledger: its {AUDITS} and {TRANSCRIPTS} are all there is")
    with Ledger.read(run) as ledger:
        lines = (json.dumps(call, ensure_ascii=False) + "\n" for call in ledger.calls.all())
        write_atomically(to / AUDITS, "".join(r.model_dump_json() + "\n" for r in ledger.jobs.records()))
        with replacing(to / CALLS) as part, part.open("w", encoding="utf-8") as stream:
            stream.writelines(lines)
        (to / TRANSCRIPTS).mkdir(exist_ok=True)
        for name in ledger.jobs.states():
            body = json.dumps(transcript(ledger, name), indent=1, default=str)
            write_atomically(to / TRANSCRIPTS / f"{name}.json", body)
    return [to / AUDITS, to / CALLS, to / TRANSCRIPTS]


def _write_logs(run: Path, to: Path) -> list[Path]:
    try:
        from auditor.audits.inspect_logs import write_logs
    except ModuleNotFoundError as error:
        if not str(error.name).startswith("inspect_ai"):
            raise
        raise UsageError("eval needs inspect_ai: pip install 'auditor-adl[inspect]'") from error
    return write_logs(run, to)


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UsageError("parquet needs pyarrow: pip install 'auditor-adl[parquet]'") from error
    with replacing(path) as part:
        parquet.write_table(pyarrow.Table.from_pylist(list(rows)), part)
