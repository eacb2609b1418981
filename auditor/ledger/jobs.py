"""A run's jobs, with the record of each that has ended, and what happened, as events."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from auditor.errors import UsageError
from auditor.ledger.database import Database, LedgerBroken, dumped, keep_texts, new_uid
from auditor.records.results import AuditRecord

RUNNING = "running"
ENDED = frozenset({"done", "failed", "invalid", "leaked"})


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `job`: the audit's name, or nothing."""

    n: int
    at: float
    kind: str
    job: str
    data: dict[str, Any]


@dataclass(slots=True)
class Cell:
    """The audits of one agent at one budget: those that have ended, by target, and how many have not."""

    agent: str
    budget: int
    ended: dict[str, list[str]]
    open: int = 0


class Events:
    """The one source of progress: bars, views and logs read it and nothing else."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def tell(self, kind: str, job: str = "", **data: Any) -> None:
        with self._db.writing(lasting=False) as db:
            _note(db, kind, job, data)

    def since(self, n: int = 0) -> list[Event]:
        """What happened after the event with that number, in order."""
        found = self._db.rows("SELECT n, at, kind, job, data FROM events WHERE n > ? ORDER BY n", n)
        return [Event(n, at, kind, job, json.loads(data)) for n, at, kind, job, data in found]

    def begun(self) -> dict[str, float]:
        """When work on each audit was begun, the last time."""
        query = (
            "SELECT job, MAX(at) FROM events WHERE kind = 'audit' AND json_extract(data, '$.state') = ? GROUP BY job"
        )
        return dict(self._db.rows(query, RUNNING))

    def last(self) -> int:
        """The newest event's number."""
        return int(self._db.rows("SELECT COALESCE(MAX(n), 0) FROM events")[0][0])


class Jobs:
    """The audits of a run: what each is, how it stands, and what it came to."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self.owner = f"{os.getpid()}@{socket.gethostname()}"

    def enter(self, jobs: Iterable[tuple[str, str, str]]) -> None:
        """Jobs as (id, name, spec), in the run's order; those that are there stay as they are."""
        with self._db.writing() as db:
            db.executemany(
                "INSERT INTO jobs (id, name, place, spec, state) VALUES (?, ?, ?, ?, 'queued') ON CONFLICT DO NOTHING",
                [(job, name, place, spec) for place, (job, name, spec) in enumerate(jobs)],
            )

    def states(self) -> dict[str, str]:
        """Each job's state, by its name, in the run's order."""
        return dict(self._db.rows("SELECT name, state FROM jobs ORDER BY place"))

    def state(self, name: str) -> str:
        """A job's state; nothing if there is no such job."""
        found = self._db.rows("SELECT state FROM jobs WHERE name = ?", name)
        return str(found[0][0]) if found else ""

    def open_specs(self) -> list[str]:
        """Those that have not ended."""
        query = "SELECT spec FROM jobs WHERE state IN ('queued', 'running') ORDER BY place"
        return [spec for (spec,) in self._db.rows(query)]

    def specs(self) -> list[str]:
        """All jobs as they were entered, in order."""
        return [spec for (spec,) in self._db.rows("SELECT spec FROM jobs ORDER BY place")]

    def spec(self, name: str) -> str:
        """One of them, by its name."""
        ((spec,),) = self._db.rows("SELECT spec FROM jobs WHERE name = ?", name)
        return str(spec)

    def cells(self) -> list[Cell]:
        """The run's audits by agent and budget, in its order."""
        query = (
            "SELECT json_extract(spec, '$.agent.name'), json_extract(spec, '$.budget'), "
            "json_extract(spec, '$.target.name'), name, state, record IS NOT NULL FROM jobs ORDER BY place"
        )
        found: dict[tuple[str, int], Cell] = {}
        for agent, budget, target, name, state, known in self._db.rows(query):
            cell = found.setdefault((agent, budget), Cell(agent, budget, {}))
            if known and state in ENDED:
                cell.ended.setdefault(target, []).append(name)
            else:
                cell.open += 1
        return list(found.values())

    def heard_of(self, names: Sequence[str]) -> float:
        """When any of these was last heard of."""
        wanted = set(names)
        beats = self._db.rows("SELECT name, heartbeat FROM jobs")
        return max(float(at) for name, at in beats if name in wanted)

    def records(self) -> Iterator[AuditRecord]:
        """Those that have ended, in the run's order; one in memory at a time."""
        for (name,) in self._db.rows("SELECT name FROM jobs WHERE record IS NOT NULL ORDER BY place"):
            record = self.record(name)
            assert record is not None
            yield record

    def record(self, name: str) -> AuditRecord | None:
        """What a job came to; None until it has ended."""
        found = self._db.rows("SELECT record FROM jobs WHERE name = ?", name)
        try:
            return AuditRecord.model_validate_json(found[0][0]) if found and found[0][0] else None
        except ValidationError as error:
            first = error.errors()[0]["msg"]
            raise LedgerBroken(self._db.path, f"is damaged: the record of {name} cannot be read ({first})") from error

    def done_with_problems(self) -> set[str]:
        """Jobs that are done and lack a grade."""
        return {name for (name,) in self._db.rows("SELECT name FROM jobs WHERE state = 'done' AND reason != ''")}

    def raw_records(self) -> Iterator[tuple[str, str]]:
        """Names and records as JSON, in the run's order, one in memory at a time."""
        for (name,) in self._db.rows("SELECT name FROM jobs WHERE record IS NOT NULL ORDER BY place"):
            ((record,),) = self._db.rows("SELECT record FROM jobs WHERE name = ?", name)
            yield name, record

    def size_of_records(self) -> tuple[int, int]:
        """How many there are, and how many bytes of JSON."""
        query = "SELECT COUNT(record), COALESCE(SUM(LENGTH(CAST(record AS BLOB))), 0) FROM jobs"
        ((count, size),) = self._db.rows(query)
        return int(count), int(size)

    def take(self, name: str) -> None:
        """Work on a job begins."""
        with self._db.writing(lasting=False) as db:
            db.execute(
                "UPDATE jobs SET state = 'running', owner = ?, heartbeat = ?, attempts = attempts + 1 WHERE name = ?",
                (self.owner, time.time(), name),
            )
            _note(db, "audit", name, {"state": RUNNING})

    def finish(self, record: AuditRecord) -> None:
        """A job has ended with this record, or has another one now."""
        told = {"state": record.status, "agent": record.agent, "organism": record.organism, "budget": record.budget,
                "interactions": record.interactions_used, "tokens": record.tokens.model_dump(),
                "cost_usd": record.cost_usd, "error": record.error,
                "grades": {grade.grader: grade.score for grade in record.grades}}  # fmt: skip
        with self._db.writing() as db:
            changed = db.execute(
                "UPDATE jobs SET state = ?, reason = ?, record = ?, heartbeat = ? WHERE name = ?",
                (record.status, record.error or "", record.model_dump_json(), time.time(), record.id),
            ).rowcount
            if changed != 1:
                raise UsageError(f"{self._db.path}: there is no job {record.id}")
            _note(db, "audit", record.id, told)

    def requeue(self, states: Sequence[str]) -> int:
        """Put jobs of these states back into the queue; what was paid for them stays. Returns how many."""
        with self._db.writing() as db:
            marks = ", ".join("?" * len(states))
            return db.execute(f"UPDATE jobs SET state = 'queued' WHERE state IN ({marks})", tuple(states)).rowcount


class Transcripts:
    """What each agent was sent and said, as it grows."""

    def __init__(self, database: Database) -> None:
        self._db = database
        self._said: dict[str, int] = {}  # how many messages of a job's present walk are there

    def say(self, job: str, messages: Sequence[Mapping[str, Any]], about: Mapping[str, Any], **event: Any) -> None:
        """All messages as they stand, what is told beside them, and what of it is an event."""
        old = self._said.get(job, 0)
        with self._db.writing(lasting=False) as db:
            hashes = keep_texts(db, messages[old:])
            if not old:  # what an earlier attempt said may not be what is said now
                db.execute("DELETE FROM steps WHERE job = ?", (job,))
            rows = [(job, old + i, sha256) for i, sha256 in enumerate(hashes)]
            db.executemany("INSERT OR REPLACE INTO steps VALUES (?, ?, ?)", rows)
            (before,) = db.execute("SELECT about FROM jobs WHERE name = ?", (job,)).fetchone() or ("{}",)
            told = dumped({**json.loads(before), **about})
            db.execute("UPDATE jobs SET about = ?, heartbeat = ? WHERE name = ?", (told, time.time(), job))
            if event:
                _note(db, "turn", job, event)
        self._said[job] = len(messages)

    def ended(self, job: str) -> None:
        """Nothing more is said in this walk."""
        self._said.pop(job, None)

    def messages(self, job: str) -> list[dict[str, Any]]:
        found = self._db.rows("SELECT body FROM steps JOIN texts ON message = sha256 WHERE job = ? ORDER BY place", job)
        return [json.loads(body) for (body,) in found]

    def about(self, job: str) -> dict[str, Any]:
        """What is told beside the messages."""
        found = self._db.rows("SELECT about FROM jobs WHERE name = ?", job)
        return dict(json.loads(found[0][0])) if found else {}


def _note(db: sqlite3.Connection, kind: str, job: str, data: Mapping[str, Any]) -> None:
    row = (new_uid(), time.time(), kind, job, dumped(data))
    db.execute("INSERT INTO events (uid, at, kind, job, data) VALUES (?, ?, ?, ?, ?)", row)
