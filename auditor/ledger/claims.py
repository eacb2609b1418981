"""Who makes which job, where several processes or machines share a run's folder.

A worker is alive as long as it holds the lock of its file, which the system lets go of when it dies, however it dies.
Only files and their locks are used: SQLite's own are not to be trusted between machines.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import TracebackType

from filelock import FileLock, Timeout

from auditor.errors import BadFile
from auditor.files import write_atomically

WORKERS, CLAIMS = "workers", "claims"  # folders of a run


class Claim(StrEnum):
    """Whose a job is."""

    OURS = "ours"
    OTHERS = "others"
    ORPHANED = "orphaned"  # of a worker that is no more: what it did is in its ledger


class Claims:
    """This process among the workers of a run, until the block ends."""

    def __init__(self, folder: Path) -> None:
        """Raises BadFile if the folder takes no files or knows no locks."""
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
        return Claim.OTHERS if is_alive(self._workers, owner) else Claim.ORPHANED

    def take(self, job: str, *, orphans: bool = False) -> Claim:
        """Claim a job for this worker, if it is nobody's; with `orphans` also one whose worker is no more."""
        path = self._claims / job
        with self._turn:
            if self._over.exists():
                return Claim.OTHERS
            owner = path.read_text("utf-8") if path.exists() else ""
            if owner and owner != self.worker:
                if is_alive(self._workers, owner):
                    return Claim.OTHERS
                if not orphans:
                    return Claim.ORPHANED
            write_atomically(path, self.worker)
        return Claim.OURS

    def ledgers(self) -> Iterator[Path]:
        """Those that other workers keep here, or kept."""
        yield from (path for path in sorted(self._workers.glob("*.sqlite")) if path.stem != self.worker)

    def reopen(self) -> None:
        """Jobs can be claimed again."""
        self._over.unlink(missing_ok=True)

    def close(self) -> None:
        """All jobs have ended: nobody claims any more. Drops what workers that are no more left here, whose ledgers
        must have been taken over.
        """
        write_atomically(self._over, "")
        for path in self._workers.iterdir():
            worker = path.name.split(".")[0]
            if worker != self.worker and not is_alive(self._workers, worker):
                path.unlink(missing_ok=True)
        with self._turn:
            for path in self._claims.iterdir():
                if not path.name.startswith("."):
                    path.unlink(missing_ok=True)


def is_alive(workers: Path, worker: str) -> bool:
    """Whether a worker still holds its lock."""
    path = workers / f"{worker}.lock"
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True
