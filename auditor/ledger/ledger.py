"""A run's ledger: opened by one process at a time; what it holds is what the run did."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from auditor.errors import BadFile, UsageError
from auditor.ledger.calls import Calls
from auditor.ledger.claims import WORKERS
from auditor.ledger.database import Database
from auditor.ledger.jobs import Events, Jobs, Transcripts
from auditor.ledger.merge import absorb, lend
from auditor.ledger.spends import ModelAnswers, Spends

LEDGER, OWNER, CHECKPOINTS = "ledger.sqlite", "owner.json", "checkpoints.sqlite"
SMALLEST = 512  # bytes of a database
EXPORTS = ("run.json", "audits.jsonl", "calls.jsonl", CHECKPOINTS)  # whose run is not known without a ledger


class Ledger:
    """The tables of `ledger.sqlite`, each behind what it is used for."""

    def __init__(self, database: Database, lock: FileLock | None = None) -> None:
        self._db, self._file_lock = database, lock
        self.path, self.folder = database.path, database.path.parent
        self.jobs, self.events, self.transcripts = Jobs(database), Events(database), Transcripts(database)
        self.calls, self.spends, self.answers = Calls(database), Spends(database), ModelAnswers(database)

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """The ledger in `folder`, made if there is none; until it is closed no other process may open it so.

        Raises UsageError if nothing can be written there or somebody is at work there; BadFile if it is damaged, of a
        newer version, or missing beside what a run left.
        """
        lock = _locked(folder)
        try:
            path, unclean = folder / LEDGER, (folder / OWNER).exists()
            left = [name for name in EXPORTS if (folder / name).exists()]
            if not (there := path.stat().st_size if path.exists() else 0) and left:
                raise BadFile(path, f"is missing beside {', '.join(left)}: {_WHOSE}")
            if 0 < there < SMALLEST:  # SQLite would take it for a new one
                raise BadFile(path, "is damaged; take it from a backup, or choose another --name")
            ledger = cls(Database(path, doubtful=unclean), lock)
            told = json.dumps({"owner": ledger.jobs.owner, "since": time.time()})
            (folder / OWNER).write_text(told)
        except OSError as error:
            lock.release()
            raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from error
        except BaseException:
            lock.release()
            raise
        return ledger

    @classmethod
    def beside(cls, folder: Path, worker: str) -> Ledger:
        """A worker's own ledger, which the run's takes over later. Raises BadFile."""
        return cls(Database(folder / WORKERS / f"{worker}.sqlite", between_machines=True))

    @classmethod
    def read(cls, folder: Path) -> Ledger:
        """The same to be read only, also while somebody writes it. Raises BadFile."""
        path = folder / LEDGER
        if not path.is_file():
            raise BadFile(path, "is missing: there is no run that could be read")
        return cls(Database(path, read_only=True))

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        self._db.close()
        if self._file_lock is not None:
            (self.folder / OWNER).unlink(missing_ok=True)
            self._file_lock.release()

    def absorb(self, path: Path, job: str | None = None) -> list[str]:
        """Take over what another ledger of the same run holds, or holds of one job. Returns the jobs that have ended
        here by it. Raises BadFile.
        """
        return absorb(self._db, path, job)

    def lend(self, path: Path) -> None:
        """Write what is known of jobs that have not ended to a ledger that workers read. Raises BadFile."""
        lend(self._db, path)

    def request(self) -> dict[str, Any] | None:
        """What the run was asked for; None in a ledger that no run has begun."""
        found = self._db.rows("SELECT request FROM run")
        return dict(json.loads(found[0][0])) if found else None

    def made_with(self) -> dict[str, Any]:
        """The settings and versions that it was begun with."""
        found = self._db.rows("SELECT made_with FROM run")
        return dict(json.loads(found[0][0])) if found else {}

    def begun(self) -> float:
        """When it was begun, in seconds since 1970."""
        return float(self._db.rows("SELECT begun FROM run")[0][0])

    def begin(self, request: Mapping[str, Any], made_with: Callable[[], Mapping[str, Any]], *, resume: bool) -> None:
        """Note what is asked for, and in a new run what it is made with, or see that the same was asked for before.

        Raises UsageError if there is a run already and `resume` is off, or naming all that differs.
        """
        now, before = json.loads(json.dumps(request)), self.request()
        if before is None:
            with self._db.writing() as db:
                row = (time.time(), json.dumps(now), json.dumps(made_with(), default=str))
                db.execute("INSERT INTO run VALUES (1, ?, ?, ?)", row)
            return
        if not resume:
            raise UsageError(f"{self.folder} holds a run already; add --resume to finish it, or choose another --name")
        if changed := differing(before, now):
            raise UsageError(f"{self.folder} was another run: {', '.join(changed)} differ; choose another --name")

    def ask(self, request: Mapping[str, Any]) -> None:
        """Note what is asked for in place of what was, if anything: for jobs that only ever go on."""
        with self._db.writing() as db:
            if not db.execute("UPDATE run SET request = ?", (json.dumps(request),)).rowcount:
                db.execute("INSERT INTO run VALUES (1, ?, ?, '{}')", (time.time(), json.dumps(request)))


_WHOSE = "what they are of is not known; `auditor runs show` reads them, a run needs another --name"


def is_run(folder: Path) -> bool:
    """Whether a run with a ledger lies there."""
    return (folder / LEDGER).is_file()


def _locked(folder: Path) -> FileLock:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        lock.acquire(timeout=0)
    except Timeout as error:
        told = f"{folder}: another auditor is at work there{_who(folder)}; wait until it has ended, or choose another"
        raise UsageError(f"{told} --name") from error
    except (OSError, NotImplementedError) as error:  # some network disks know no locks
        told = str(getattr(error, "strerror", None) or error)
        raise UsageError(f"cannot write to {folder}: {told}; choose --out elsewhere") from error
    return lock


def _who(folder: Path) -> str:
    try:
        told = json.loads((folder / OWNER).read_bytes())
        return f" (process {told['owner']}, for {max(0.0, time.time() - told['since']):.0f} s)"
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def differing(before: Mapping[str, Any], now: Mapping[str, Any], *, only_asked: bool = False) -> list[str]:
    """The names of what differs between two requests; with `only_asked` of what the second one has."""
    now = json.loads(json.dumps(now))
    keys = now if only_asked else {**before, **now}
    return [name for key in keys for name in _changed(key, before.get(key), now.get(key))]


def _changed(key: str, before: Any, now: Any) -> list[str]:
    """The names of what differs: `key`, or the parts of it if both are mappings."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [f"{key} {name}" for name in {**before, **now} if before.get(name) != now.get(name)]
    return [] if before == now else [key]
