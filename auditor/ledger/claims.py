"""Who makes which job, where several processes or machines share a run's folder.

A worker is alive as long as it holds the lock of its file, which the system lets go of when it dies, however it dies.
Only files and their locks are used: SQLite's own are not to be trusted between machines. What the process that keeps
the run's ledger knows to have ended is marked; what a worker did is in its own ledger, which whoever takes its place
reads first.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from auditor.errors import BadFile
from auditor.files import write_atomically
from auditor.ledger.database import LedgerBroken

WORKERS, CLAIMS = "workers", "claims"  # folders of a run
LENT = "lent"  # in place of a worker's name: what the run's ledger knows of jobs that are not done
DONE = "done"  # in place of a worker's name: nobody claims it any more


class Claim(StrEnum):
    """Whose a job is."""

    OURS = "ours"
    OTHERS = "others"
    ORPHANED = "orphaned"  # of a worker that is no more: what it did is in its ledger


class Claims:
    """This process among the workers of a run, until the block ends."""

    def __init__(self, folder: Path, *, head: bool = True) -> None:
        """`head`: it keeps the run's own ledger. Raises BadFile if the folder takes no files or knows no locks."""
        self._head = head
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._workers, self._claims = folder / WORKERS, folder / CLAIMS
        self._over = self._claims / ".over"
        try:
            self._workers.mkdir(parents=True, exist_ok=True)
            self._claims.mkdir(exist_ok=True)
            self._alive = FileLock(self._workers / f"{self.worker}.lock", thread_local=False)
            self._alive.acquire(timeout=0)
        except (OSError, NotImplementedError) as error:
            raise BadFile(folder, f"cannot be shared: {getattr(error, 'strerror', None) or error}") from error
        self._turn = FileLock(self._claims / ".lock", thread_local=False)

    def __enter__(self) -> Claims:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alive.release()
        Path(self._alive.lock_file).unlink(missing_ok=True)

    def whose(self, job: str) -> Claim:
        """Whose a job is now; nobody's counts as ours."""
        if self._over.exists():
            return Claim.OTHERS
        try:
            owner = (self._claims / job).read_text("utf-8")
        except OSError:
            return Claim.OURS
        if not owner or owner == self.worker:
            return Claim.OURS
        if owner == DONE:
            return Claim.OTHERS
        if self.is_alive(owner):
            return Claim.OTHERS
        # What a head did that is no more is in the run's ledger, which only another head reads.
        known = self._head or (self._workers / f"{owner}.sqlite").exists()
        return Claim.ORPHANED if known else Claim.OTHERS

    def is_alive(self, worker: str) -> bool:
        """Whether another worker still holds its lock."""
        path = self._workers / f"{worker}.lock"
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0):
                return False
        except Timeout:
            return True

    def begun(self) -> set[str]:
        """Jobs that somebody has claimed, or had, in one look at the folder."""
        try:
            return {entry.name for entry in os.scandir(self._claims)}
        except OSError as error:
            raise LedgerBroken(self._claims, _told(error)) from error

    def take(self, job: str, *, orphans: bool = False) -> Claim:
        """Claim a job for this worker, if it is nobody's; with `orphans` also one whose worker is no more."""
        try:
            with self._turn:
                claim = self.whose(job)
                if claim is Claim.OURS or (claim is Claim.ORPHANED and orphans):
                    self._write(job, self.worker)
                    return Claim.OURS
            return claim
        except OSError as error:
            raise LedgerBroken(self._claims, _told(error)) from error

    def done(self, job: str) -> None:
        """A job has ended, as the run's own ledger knows or is about to."""
        self._write(job, DONE)

    def _write(self, job: str, owner: str) -> None:
        part = self._claims / f".{job}.{self.worker}"
        try:
            part.write_text(owner)
            os.replace(part, self._claims / job)
        except OSError as error:
            raise LedgerBroken(self._claims / job, _told(error)) from error

    def ledgers(self) -> Iterator[Path]:
        """Those that other workers keep here, or kept, and what the run's own lends."""
        yield from (path for path in sorted(self._workers.glob("*.sqlite")) if path.stem != self.worker)

    @property
    def lent(self) -> Path:
        """Where the run's own ledger lends what it knows of jobs that are not done."""
        return self._workers / f"{LENT}.sqlite"

    def reopen(self, jobs: Iterable[str]) -> None:
        """Jobs can be claimed again, these too if they had ended: they are to be made anew."""
        self._over.unlink(missing_ok=True)
        for job in jobs:
            path = self._claims / job
            if path.exists() and path.read_text("utf-8") == DONE:
                path.unlink()

    def close(self) -> None:
        """All jobs have ended: nobody claims any more. Drops what workers that are no more left here, whose ledgers
        must have been taken over.
        """
        write_atomically(self._over, "")
        for path in self._workers.iterdir():
            worker = path.name.split(".")[0]
            if worker != self.worker and not self.is_alive(worker):
                path.unlink(missing_ok=True)
        with self._turn:
            for path in self._claims.iterdir():
                if not path.name.startswith("."):
                    path.unlink(missing_ok=True)


def _told(error: OSError) -> str:
    return f"cannot be written ({error.strerror or error}); once it can be, `--resume` goes on from what is there"
