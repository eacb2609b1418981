"""The ledger's tables, and how an older ledger becomes a newer one."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from auditor.errors import BadFile

TABLES = """
CREATE TABLE run (                       -- one row: what was asked for
    only INTEGER PRIMARY KEY CHECK (only = 1),
    begun REAL NOT NULL,
    request TEXT NOT NULL,               -- JSON: what has to be the same for a run to be resumed
    made_with TEXT NOT NULL              -- JSON: settings of the machine, versions
);
CREATE TABLE jobs (
    id TEXT PRIMARY KEY,                 -- hash of all that decides the outcome
    name TEXT NOT NULL UNIQUE,           -- for people, and for files
    place INTEGER NOT NULL,              -- in the run's order
    spec TEXT NOT NULL,                  -- JSON: a JobSpec
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'invalid', 'leaked')),
    owner TEXT NOT NULL DEFAULT '',      -- who runs it
    heartbeat REAL NOT NULL DEFAULT 0,   -- when it was last heard of
    attempts INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL DEFAULT '',     -- why it failed
    about TEXT NOT NULL DEFAULT '{}',    -- JSON: what its transcript tells beside the messages
    record TEXT                          -- JSON: an AuditRecord, once there is one
);
CREATE INDEX jobs_by_state ON jobs (state);
CREATE TABLE texts (                     -- messages and tools, each once, however often they are sent
    sha256 TEXT PRIMARY KEY,
    body TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE calls (                     -- every attempt to call a chat model
    uid TEXT PRIMARY KEY,
    at REAL NOT NULL,
    job TEXT NOT NULL,                   -- a job's name; '' outside any
    role TEXT NOT NULL,                  -- agent, a grader's name, check
    key TEXT NOT NULL,                   -- hash of the whole request: messages, tools, model, options, job, role
    repeat INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    model TEXT NOT NULL,
    options TEXT NOT NULL,               -- JSON
    hosted INTEGER NOT NULL,
    usable INTEGER NOT NULL,             -- only these are replayed
    sent TEXT NOT NULL,                  -- JSON: hashes of the messages
    tools TEXT NOT NULL,                 -- hash of the tools' schemas, '' for none
    reply TEXT,                          -- JSON: the message
    error TEXT NOT NULL DEFAULT '',
    tokens_in INTEGER, tokens_out INTEGER, tokens_cached INTEGER, cost_usd REAL, seconds REAL NOT NULL
);
CREATE INDEX calls_by_key ON calls (key) WHERE usable;
CREATE INDEX calls_by_job ON calls (job);
CREATE TABLE spends (                    -- interactions, charged before they are spent
    job TEXT NOT NULL,
    key TEXT NOT NULL,                   -- of the tool call; the same when it is replayed
    at REAL NOT NULL,
    interactions INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('in flight', 'answered', 'given back')),
    times INTEGER NOT NULL,              -- that the call was begun; more than once if the run was cut off in it
    PRIMARY KEY (job, key)
) WITHOUT ROWID;
CREATE TABLE model_calls (               -- what the audited models answered
    job TEXT NOT NULL,
    key TEXT NOT NULL,                   -- hash of the requests, seeds included
    at REAL NOT NULL,
    requests TEXT NOT NULL,
    answers TEXT NOT NULL,
    PRIMARY KEY (job, key)
) WITHOUT ROWID;
CREATE TABLE steps (                     -- transcripts: an audit's messages in order
    job TEXT NOT NULL,
    place INTEGER NOT NULL,
    message TEXT NOT NULL,               -- hash of its JSON in texts
    PRIMARY KEY (job, place)
) WITHOUT ROWID;
CREATE TABLE events (                    -- what progress, views and logs are made from
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL UNIQUE,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    job TEXT NOT NULL,
    data TEXT NOT NULL
);
"""

MIGRATIONS: tuple[str, ...] = (TABLES,)  # the n-th makes version n + 1 of version n; those that shipped never change
VERSION = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, path: Path, *, read_only: bool = False) -> None:
    """Bring the tables up to date, all of it or nothing. Raises BadFile for a newer auditor's ledger, or for an older
    one that may only be read.
    """
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        told = f"is of version {version}, and this auditor knows {VERSION}; use the newer auditor that wrote it"
        raise BadFile(path, told)
    if version == VERSION:
        return
    if read_only:
        raise BadFile(path, f"is of version {version}; `--resume` of its run brings it to {VERSION}, losing nothing")
    steps = "".join(MIGRATIONS[version:])
    connection.executescript(f"BEGIN IMMEDIATE; {steps} PRAGMA user_version = {VERSION}; COMMIT;")
