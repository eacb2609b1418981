"""One ledger takes over what another holds: what a worker did beside it comes into the run's own."""

from __future__ import annotations

from pathlib import Path

from auditor.errors import BadFile
from auditor.ledger.database import Database
from auditor.ledger.schema import VERSION

_ENDED = "('done', 'failed', 'invalid', 'leaked')"
# Rows that are there already are the same rows: their keys are hashes, or drawn.
_TAKEN = f"""
INSERT OR IGNORE INTO texts SELECT * FROM other.texts;
INSERT OR IGNORE INTO calls SELECT * FROM other.calls;
INSERT OR IGNORE INTO model_calls SELECT * FROM other.model_calls;
INSERT INTO spends SELECT * FROM other.spends WHERE true ON CONFLICT (job, key) DO UPDATE
    SET state = CASE WHEN 'answered' IN (state, excluded.state) THEN 'answered' ELSE excluded.state END,
        times = MAX(times, excluded.times);
INSERT OR IGNORE INTO events (uid, at, kind, job, data) SELECT uid, at, kind, job, data FROM other.events ORDER BY n;
DELETE FROM steps WHERE job IN (SELECT theirs.name FROM other.jobs theirs JOIN jobs ours USING (id)
    WHERE theirs.state IN {_ENDED} AND ours.state NOT IN {_ENDED});
INSERT OR IGNORE INTO steps SELECT * FROM other.steps;
UPDATE jobs SET (state, owner, heartbeat, attempts, reason, about, record) =
    (SELECT state, owner, heartbeat, jobs.attempts + attempts, reason, about, record FROM other.jobs theirs
     WHERE theirs.id = jobs.id)
    WHERE state NOT IN {_ENDED} AND id IN (SELECT id FROM other.jobs WHERE state IN {_ENDED});
"""


def lend(ours: Database, path: Path) -> None:
    """Write to `path` what is known of jobs that have not ended: their calls, charges and answers. Raises BadFile."""
    path.unlink(missing_ok=True)
    Database(path, between_machines=True).close()
    with ours.beside(path) as db:
        for table in ("calls", "spends", "model_calls"):
            open_jobs = f"SELECT name FROM jobs WHERE state NOT IN {_ENDED}"
            db.execute(f"INSERT INTO other.{table} SELECT * FROM {table} WHERE job IN ({open_jobs})")


def absorb(ours: Database, path: Path) -> None:
    """Take over what the ledger at `path` holds; doing so twice changes nothing. Raises BadFile.

    A job that has ended in both keeps the record that is here.
    """
    if not path.is_file():
        raise BadFile(path, "is no ledger: there is no such file")
    with ours.beside(path) as db:
        (version,) = db.execute("PRAGMA other.user_version").fetchone()
        if version == 0:  # its worker died before it wrote anything
            return
        if version != VERSION:
            raise BadFile(path, f"is of version {version}; this auditor merges version {VERSION}")
        for statement in _TAKEN.split(";\n"):
            if statement.strip():
                db.execute(statement)
