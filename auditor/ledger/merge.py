"""One ledger takes over what another holds: what a worker did beside it comes into the run's own."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from auditor.errors import BadFile
from auditor.ledger.database import Database
from auditor.ledger.schema import VERSION

_ENDED = "('done', 'failed', 'invalid', 'leaked')"
# What is known of each ledger as long as this connection lives: jobs whose every row was taken over, the last event.
_KNOWN = """
CREATE TEMP TABLE IF NOT EXISTS settled (ledger TEXT, job TEXT, PRIMARY KEY (ledger, job)) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS heard (ledger TEXT PRIMARY KEY, n INTEGER) WITHOUT ROWID;
CREATE TEMP TABLE IF NOT EXISTS wanted (job TEXT PRIMARY KEY) WITHOUT ROWID;
DELETE FROM wanted;
"""
# Each job of a table, at the price of a look into its index: the rows of a large ledger are not read for it.
_JOBS_OF = """
INSERT OR IGNORE INTO wanted WITH RECURSIVE each(job) AS (SELECT MIN(job) FROM other.{table} UNION ALL
    SELECT (SELECT MIN(job) FROM other.{table} WHERE job > each.job) FROM each WHERE job IS NOT NULL)
    SELECT job FROM each WHERE job IS NOT NULL AND job NOT IN (SELECT job FROM settled WHERE ledger = :ledger);
"""
_ALL_JOBS = f"""
INSERT INTO wanted SELECT name FROM other.jobs WHERE name NOT IN (SELECT job FROM settled WHERE ledger = :ledger);
{"".join(_JOBS_OF.format(table=table) for table in ("calls", "spends", "model_calls"))}
"""
# Rows that are there already are the same rows: their keys are hashes, or drawn.
_TAKEN = f"""
INSERT OR IGNORE INTO texts SELECT * FROM other.texts WHERE sha256 IN (
    SELECT message FROM other.steps WHERE job IN wanted UNION SELECT tools FROM other.calls WHERE job IN wanted
    UNION SELECT value FROM other.calls, json_each(sent) WHERE job IN wanted);
INSERT OR IGNORE INTO calls SELECT * FROM other.calls WHERE job IN wanted;
INSERT OR IGNORE INTO model_calls SELECT * FROM other.model_calls WHERE job IN wanted;
INSERT INTO spends SELECT * FROM other.spends WHERE job IN wanted ON CONFLICT (job, key) DO UPDATE
    SET state = CASE WHEN 'answered' IN (state, excluded.state) THEN 'answered' ELSE excluded.state END,
        times = MAX(times, excluded.times);
DELETE FROM steps WHERE job IN (SELECT theirs.name FROM other.jobs theirs JOIN jobs ours USING (id)
    WHERE theirs.name IN wanted AND theirs.state IN {_ENDED} AND ours.state NOT IN {_ENDED});
INSERT OR IGNORE INTO steps SELECT * FROM other.steps WHERE job IN wanted;
"""
_EVENTS = """
INSERT OR IGNORE INTO events (uid, at, kind, job, data) SELECT uid, at, kind, job, data FROM other.events
    WHERE n > COALESCE((SELECT n FROM heard WHERE ledger = :ledger), 0) ORDER BY n;
INSERT OR REPLACE INTO heard SELECT :ledger, MAX(n) FROM other.events;
"""
_NEWLY = f"""
SELECT name FROM jobs WHERE name IN wanted AND state NOT IN {_ENDED}
    AND id IN (SELECT id FROM other.jobs WHERE name IN wanted AND state IN {_ENDED}) ORDER BY place
"""
_ENDING = f"""
UPDATE jobs SET (state, owner, heartbeat, attempts, reason, about, record) =
    (SELECT state, owner, heartbeat, jobs.attempts + attempts, reason, about, record FROM other.jobs theirs
     WHERE theirs.id = jobs.id)
    WHERE name IN wanted AND state NOT IN {_ENDED} AND id IN (SELECT id FROM other.jobs WHERE state IN {_ENDED});
INSERT OR IGNORE INTO settled SELECT :ledger, name FROM other.jobs WHERE name IN wanted AND state IN {_ENDED};
"""


def lend(ours: Database, path: Path) -> None:
    """Write to `path` what is known of jobs that have not ended: their calls, charges and answers. Raises BadFile."""
    path.unlink(missing_ok=True)
    Database(path, between_machines=True).close()
    with ours.beside(path) as db:
        for table in ("calls", "spends", "model_calls"):
            open_jobs = f"SELECT name FROM jobs WHERE state NOT IN {_ENDED}"
            db.execute(f"INSERT INTO other.{table} SELECT * FROM {table} WHERE job IN ({open_jobs})")


def absorb(ours: Database, path: Path, job: str | None = None) -> list[str]:
    """Take over what the ledger at `path` holds, or what it holds of one job; doing so twice changes nothing.

    A job that has ended in both keeps the record that is here. Whoever absorbs again reads what is new: of jobs that
    had ended there, nothing. Returns the jobs that have ended here by it. Raises BadFile.
    """
    if not path.is_file():
        raise BadFile(path, "is no ledger: there is no such file")
    given = {"ledger": str(path)}
    with ours.beside(path) as db:
        (version,) = db.execute("PRAGMA other.user_version").fetchone()
        if version == 0:  # its worker died before it wrote anything
            return []
        if version != VERSION:
            raise BadFile(path, f"is of version {version}; this auditor merges version {VERSION}")
        _run(db, _KNOWN, given)
        if job is None:
            _run(db, _ALL_JOBS, given)
        else:
            db.execute("INSERT INTO wanted VALUES (?)", (job,))
        _run(db, _TAKEN, given)
        if job is None:
            _run(db, _EVENTS, given)
        ended = [name for (name,) in db.execute(_NEWLY)]
        _run(db, _ENDING, given)
    return ended


def _run(db: sqlite3.Connection, statements: str, given: dict[str, str]) -> None:
    for statement in filter(str.strip, statements.split(";\n")):
        db.execute(statement, {name: value for name, value in given.items() if f":{name}" in statement})
