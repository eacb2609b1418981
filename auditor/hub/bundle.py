"""A run as the files of a dataset: tables, the records, the report, a card; nothing in them tells of this machine."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from auditor.audits.calibrate import trust_of
from auditor.audits.runs import records_of, request_of, transcripts_of
from auditor.audits.tables import Row, audits_table, grades_table, write_parquet
from auditor.comparison.compare import compare
from auditor.comparison.scores import Run
from auditor.errors import BadFile, UsageError
from auditor.files import write_atomically
from auditor.hub import rows
from auditor.hub.dataset_card import Told, card
from auditor.hub.scrub import Scrubber
from auditor.ledger.export import AUDITS, RUN
from auditor.ledger.ledger import Ledger, is_run
from auditor.records.results import VetReport
from auditor.reports.readings import kept_by_lens
from auditor.views.report import to_markdown
from auditor.workspace import Workspace

CARD, REPORT, REPORT_PAGE, DATA = "README.md", "report.json", "report.md", "data"
TABLES = ("audits", "grades", "claims", "readings", "transcripts")
FORMS = ("parquet", "jsonl")
OURS = (CARD, RUN, AUDITS, REPORT, REPORT_PAGE, *(f"{DATA}/{table}.{form}" for table in TABLES for form in FORMS))


@dataclass(frozen=True, slots=True)
class Bundle:
    """What lies in `folder`: `files` with their sizes in bytes, `rows` by table, and what whoever pushes must know."""

    folder: Path
    files: dict[str, int]
    rows: dict[str, int]
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        return sum(self.files.values())


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be made: of which run, for which repository."""

    run: Path
    repo: str
    transcripts: bool = False
    licence: str | None = None
    card: bytes | None = None  # that is there already


def report_of(run: Path) -> VetReport | None:
    """The report of `auditor audit`; None of a run that has none. Raises BadFile."""
    path = run / REPORT
    if not path.is_file():
        return None
    try:
        return VetReport.model_validate_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadFile(path, "cannot be read; `auditor audit --resume` writes it anew") from error


def bundle(wanted: Wanted, to: Path, workspace: Workspace, cache: Path) -> Bundle:
    """Write the files to the empty folder `to`. `cache`: where readings lie. Raises UsageError if nothing has ended."""
    about = about_run(wanted.run)
    run = Run(wanted.run.name, request_of(wanted.run), tuple(records_of(wanted.run)))
    if not run.records:
        raise UsageError(f"{wanted.run}: none of its audits has ended, so that there is nothing to push")
    report = report_of(wanted.run)
    own: list[Path | str] = [wanted.run, cache, *(root for _, root in workspace.roots)]
    scrubber = Scrubber([*own, *_places(wanted.run)])
    tables, missing = _tables(wanted, run, workspace, cache)
    form = "parquet" if find_spec("pyarrow") else "jsonl"
    counts = {}
    for name, found in tables.items():
        if cleaned := scrubber.clean(found):  # a table without rows has no columns, and no viewer reads it
            _write(to / DATA / f"{name}.{form}", cleaned, form)
            counts[name] = len(cleaned)
    lines = [scrubber.clean(json.loads(record.model_dump_json())) for record in run.records]
    write_atomically(to / AUDITS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    write_atomically(to / RUN, json.dumps(scrubber.clean(about), ensure_ascii=False, indent=1))
    if report is not None:
        report = VetReport.model_validate(scrubber.clean(report.model_dump(mode="json")))
        write_atomically(to / REPORT, report.model_dump_json(indent=1))
        if report.content is not None:
            write_atomically(to / REPORT_PAGE, to_markdown(report.content))
    notes = [*_unended(wanted.run), *_notes(missing, form, scrubber)]
    told = Told(wanted.repo, scrubber.clean(about), compare([run], trust=trust_of(workspace)), report, form, counts,
                dict(Counter(str(record.status) for record in run.records)), tuple(notes), wanted.licence)  # fmt: skip
    write_atomically(to / CARD, card(told, wanted.card))
    files = {str(path.relative_to(to)): path.stat().st_size for path in sorted(to.rglob("*")) if path.is_file()}
    return Bundle(to, files, counts, tuple(notes))


def about_run(run: Path) -> dict[str, Any]:
    """What a run was asked for and made with, when, and its name: no settings that only concern this machine."""
    about: dict[str, Any] = {"run": run.name, **request_of(run)}
    if is_run(run):
        with Ledger.read(run) as ledger:
            about |= ledger.made_with()
            about["begun"] = datetime.fromtimestamp(ledger.begun(), UTC).isoformat(timespec="seconds")
    if isinstance(about.get("settings"), dict):
        about["settings"] = {k: v for k, v in about["settings"].items() if k not in ("cache_dir", "server")}
    return about


def _tables(wanted: Wanted, run: Run, ws: Workspace, cache: Path) -> tuple[dict[str, list[Row]], dict[str, list[str]]]:
    """Rows by table; and by organism the lenses whose readings are no longer in the cache."""
    found = {"audits": list(audits_table(run.records)), "grades": list(grades_table(run.records)),
             "claims": list(rows.claims(run.records)), "readings": list[Row]()}  # fmt: skip
    missing: dict[str, list[str]] = {}
    for organism in dict.fromkeys(record.organism for record in run.records):
        by_lens, gone = kept_by_lens(run, organism, ws, cache)
        found["readings"] += rows.readings(organism, by_lens)
        if gone:
            missing[organism] = gone
    if wanted.transcripts:
        with transcripts_of(wanted.run) as transcript:
            ids = [record.id for record in run.records]
            found["transcripts"] = [row for name in ids for row in rows.messages(name, transcript(name))]
    return found, missing


def _write(path: Path, found: Sequence[Row], form: str) -> None:
    if form == "parquet":
        write_parquet(path, found)
    else:
        write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found))


def _notes(missing: dict[str, list[str]], form: str, scrubber: Scrubber) -> list[str]:
    notes = []
    if missing:
        gone = "; ".join(f"{organism}: {', '.join(lenses)}" for organism, lenses in missing.items())
        notes.append(f"Readings that are no longer in the cache, and so not in the table: {gone}.")
    if form == "jsonl":
        notes.append("The tables are JSON lines: Parquet needs pyarrow (pip install 'auditor-adl[parquet]').")
    if scrubber.told:
        notes.append(f"Replaced, wherever they stood ({scrubber.told}).")
    return notes


def _unended(run: Path) -> list[str]:
    """Audits that are not among the records, because they were not made, or not yet."""
    if not is_run(run):
        return []
    with Ledger.read(run) as ledger:
        count = Counter(ledger.jobs.states().values())
    still = count["queued"] + count["running"]
    return [f"Audits that had not ended when this was pushed, and are missing: {still}."] if still else []


def _places(run: Path) -> list[str]:
    """Where this machine had the models: absolute paths, which may lie anywhere."""
    if not is_run(run):
        return []
    with Ledger.read(run) as ledger:
        targets = [json.loads(spec)["target"] for spec in ledger.jobs.specs()]
    named = {target.get(key) or "" for target in targets for key in ("base", "finetuned", "adapter_base")}
    return [name for name in named if Path(name).is_absolute()]
