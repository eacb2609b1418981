"""Runs as they lie on disk, those of earlier versions too: what was asked for, and what came of it."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from auditor.comparison.scores import Run
from auditor.errors import BadFile, UnknownName, UsageError
from auditor.hub.fetched import fetched, pushed_name
from auditor.ledger.export import AUDITS, RUN, TRANSCRIPTS
from auditor.ledger.ledger import Ledger, is_run
from auditor.lines import read_lines
from auditor.records.findings import ClaimCheck
from auditor.records.record import Record
from auditor.records.results import AuditRecord


class RunSummary(Record):
    """One run at a glance."""

    name: str
    folder: str
    suite: str
    llm: str
    graders: tuple[str, ...]
    begun: float | None = Field(description="seconds since 1970; null: an old run did not say")
    states: dict[str, int]
    ledger: bool = Field(description="false: of a version without one; it can be read, not resumed")


def run_folders(folder: Path) -> list[Path]:
    """All runs in a folder, by name."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and (is_run(path) or _is_old(path)))


def find_run(run: Path, folder: Path) -> Path:
    """A run's folder, given as a path, by its name in `folder`, or as `hf://datasets/ORG/NAME`. Raises UsageError."""
    if (name := pushed_name(run)) is not None:
        return fetched(name)
    for path in (run, folder / run):
        if path.is_dir() and (is_run(path) or _is_old(path)):
            return path
    known = [path.name for path in run_folders(folder)]
    if run.is_dir():
        raise UsageError(f"{run} is no run: it has no ledger.sqlite and no {AUDITS}")
    raise UnknownName("run", str(run), known, f"in {folder}")


def own_run(run: Path, folder: Path) -> Path:
    """The same, of a run that is to be changed or written beside: it lies on this disk. Raises UsageError."""
    if (name := pushed_name(run)) is not None:
        raise UsageError(f"hf://datasets/{name} is the hub's: nothing is changed or written there from here")
    return find_run(run, folder)


def _is_old(folder: Path) -> bool:
    return not is_run(folder) and ((folder / AUDITS).is_file() or (folder / TRANSCRIPTS).is_dir())


def summary_of(folder: Path) -> RunSummary:
    """Raises BadFile if it cannot be read."""
    if not is_run(folder):
        ended: list[str] = [record.status for record in records_of(folder)]
        return _summary(folder, request_of(folder), None, ended, ledger=False)
    with Ledger.read(folder) as ledger:
        asked, states = ledger.request(), list(ledger.jobs.states().values())
        return _summary(folder, asked or {}, ledger.begun() if asked else None, states, ledger=True)


def _summary(
    folder: Path, asked: dict[str, Any], begun: float | None, states: list[str], *, ledger: bool
) -> RunSummary:
    suite, graders = asked.get("suite", {}).get("name", ""), tuple(asked.get("graders", ()))
    return RunSummary(
        name=folder.name, folder=str(folder), suite=suite, llm=str(asked.get("llm", "")), graders=graders, begun=begun,
        states=dict(Counter(states)), ledger=ledger,
    )  # fmt: skip


def request_of(folder: Path) -> dict[str, Any]:
    """What a run was asked for. Raises BadFile."""
    if is_run(folder):
        with Ledger.read(folder) as ledger:
            return ledger.request() or {}
    try:
        return dict(json.loads((folder / RUN).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise BadFile(folder / RUN, "cannot be read: what the run was is not known") from error


def records_of(folder: Path) -> Iterator[AuditRecord]:
    """A run's audits that have ended, in its order. Raises BadFile with the line that is none."""
    if is_run(folder):
        with Ledger.read(folder) as ledger:
            yield from ledger.jobs.records()
        return
    path, found = folder / AUDITS, dict[str, AuditRecord]()
    for number, line in read_lines(path):
        try:
            record = AuditRecord.model_validate(line)
        except ValidationError as error:
            first = error.errors()[0]
            raise BadFile(path, f"not an audit: {'.'.join(map(str, first['loc']))}: {first['msg']}", number) from error
        found[record.id] = record  # the last line for an id counts
    yield from found.values()


def states_of(folder: Path) -> dict[str, str]:
    """How each audit of a run stands, those that have not ended, too. Raises BadFile."""
    if is_run(folder):
        with Ledger.read(folder) as ledger:
            return dict(ledger.jobs.states())
    return {record.id: record.status for record in records_of(folder)}


def compared(run: Path, folder: Path) -> Run:
    """A run, given as `find_run` takes it, with all that a comparison needs of it. Raises UsageError, BadFile."""
    found = find_run(run, folder)
    if not is_run(found):
        with suppress(BadFile):  # without its request nothing tells that it is not comparable
            return Run(found.name, request_of(found), tuple(records_of(found)))
        return Run(found.name, {}, tuple(records_of(found)))
    with Ledger.read(found) as ledger:
        states = Counter(ledger.jobs.states().values())
        return Run(found.name, ledger.request() or {}, tuple(ledger.jobs.records()), states)


def checks_of(transcript: Mapping[str, Any], record: AuditRecord) -> tuple[ClaimCheck, ...]:
    """The record's checks with the passages that carry the claims, as far as its transcript has them."""
    try:
        found = tuple(ClaimCheck.model_validate(check) for check in transcript.get("checks") or ())
    except ValidationError:
        return record.checks
    return found if len(found) == len(record.checks) else record.checks


@contextmanager
def transcripts_of(folder: Path) -> Iterator[Callable[[str], dict[str, Any]]]:
    """By an audit's name its messages and what is told beside them; one that is missing has none."""
    if is_run(folder):
        with Ledger.read(folder) as ledger:
            yield lambda name: {**ledger.transcripts.about(name), "messages": ledger.transcripts.messages(name)}
        return

    def old(name: str) -> dict[str, Any]:
        try:
            return transcript_of(folder, name)
        except (UnknownName, BadFile):
            return {"messages": []}

    yield old


def transcript_of(folder: Path, name: str) -> dict[str, Any]:
    """One audit's messages and what is told beside them, and the LLM calls made for it. Raises UsageError."""
    if is_run(folder):
        with Ledger.read(folder) as ledger:
            known = ledger.jobs.states()
            if name not in known:
                raise UnknownName("audit", name, known)
            told = {"id": name, **ledger.transcripts.about(name), "messages": ledger.transcripts.messages(name)}
            return {**told, "calls": list(ledger.calls.all(name))}
    path = folder / TRANSCRIPTS / f"{name}.json"
    if not path.is_file():
        raise UnknownName("audit", name, (each.stem for each in path.parent.glob("*.json")))
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:  # of JSON, or of UTF-8
        raise BadFile(path, f"not JSON: {getattr(error, 'msg', error)}", getattr(error, "lineno", None)) from error
    if not isinstance(found, dict) or not all(map(_is_message, found.get("messages") or [None])):
        raise BadFile(path, "not a transcript: no object with messages")
    lines = (call for _, call in read_lines(folder / "calls.jsonl"))
    return {**found, "calls": [call for call in lines if str(call.get("purpose")).split(" ")[0] == name]}


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and "type" in value and "content" in (value.get("data") or ())


def remove(folder: Path) -> None:
    """Delete a run. Raises UsageError if somebody is at work in it, or if it cannot be deleted."""
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise UsageError(f"{folder}: an auditor is at work there; end it first") from error
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be deleted ({error.strerror or error})") from error
    finally:
        with suppress(OSError):
            lock.release()
