"""`ledger.sqlite`: every change is one transaction, on the disk when it returns."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from auditor.errors import BadFile
from auditor.ledger.schema import migrate


class LedgerBroken(BadFile):
    """The ledger cannot be read or written: nothing more may be paid for, and what is there is kept."""


PATIENCE = 30.0  # seconds that a reader or writer waits for another one's transaction
QUICKLY_CHECKED = 64 * 2**20  # bytes of a ledger that is looked through whenever it is opened


def is_damage(error: sqlite3.Error) -> bool:
    """Whether the file is at fault, and not the disk, its room, or somebody who holds it."""
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


class Database:
    """A connection that several threads use in turn."""

    def __init__(
        self, path: Path, *, read_only: bool = False, doubtful: bool = False, between_machines: bool = False
    ) -> None:
        """`doubtful`: look through all of it, however large. `between_machines`: others read it over a network.

        Raises BadFile if it is damaged, of a newer version, or cannot be opened.
        """
        self.path = path
        self.broken: LedgerBroken | None = None  # once it could not be written
        self._lock = threading.RLock()
        mode = "ro" if read_only else "rwc"
        try:
            self._connection = sqlite3.connect(
                f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=PATIENCE,
                isolation_level=None, check_same_thread=False,
            )  # fmt: skip
        except sqlite3.Error as error:
            raise BadFile(path, f"cannot be opened ({error})") from error
        try:
            if not read_only:
                journal = "DELETE" if between_machines else "WAL"  # WAL's shared memory is one machine's
                self._connection.execute(f"PRAGMA journal_mode = {journal}")
            if (size := path.stat().st_size) % 512:
                raise BadFile(path, "was cut; take it from a backup, or choose another --name")
            looked_at = doubtful or size < QUICKLY_CHECKED
            if looked_at and self._connection.execute("PRAGMA quick_check").fetchone() != ("ok",):
                raise BadFile(path, "is damaged; take it from a backup, or choose another --name")
            migrate(self._connection, path, read_only=read_only)
        except sqlite3.Error as error:
            self._connection.close()
            if is_damage(error):
                told = f"is no ledger, or is damaged ({error}); take it from a backup, or choose another --name"
                raise BadFile(path, told) from error
            raise LedgerBroken(path, f"cannot be opened ({error}); once it can be, nothing is lost") from error
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def writing(self, *, lasting: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction, all of it or nothing; no kill undoes it, and if it is `lasting`, no power cut either.

        Raises LedgerBroken.
        """
        with self._lock:
            try:
                self._connection.execute(f"PRAGMA synchronous = {'FULL' if lasting else 'NORMAL'}")
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._undo()
                told = f"cannot be written ({error}); once it can be, `--resume` goes on from what is there"
                self.broken = LedgerBroken(self.path, told)
                raise self.broken from error
            except BaseException:
                self._undo()
                raise

    @contextmanager
    def beside(self, path: Path) -> Iterator[sqlite3.Connection]:
        """One transaction that sees another ledger, too, as `other`. Raises LedgerBroken."""
        with self._lock:
            try:
                self._connection.execute("ATTACH ? AS other", (str(path),))
            except sqlite3.Error as error:
                raise LedgerBroken(path, f"cannot be read ({error})") from error
            try:
                with self.writing() as db:
                    yield db
            finally:
                self._connection.execute("DETACH other")

    def _undo(self) -> None:
        if self._connection.in_transaction:  # SQLite itself goes back after some errors, such as a full disk
            self._connection.execute("ROLLBACK")

    def rows(self, query: str, *given: Any) -> list[tuple[Any, ...]]:
        """What a SELECT gives. Raises LedgerBroken."""
        with self._lock:
            try:
                return self._connection.execute(query, given).fetchall()
            except sqlite3.Error as error:
                raise LedgerBroken(self.path, f"cannot be read ({error})") from error


def dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def keep_texts(db: sqlite3.Connection, values: Sequence[Any]) -> list[str]:
    """Put values into `texts`, each once; returns their hashes."""
    bodies = [dumped(value) for value in values]
    hashes = [hashlib.sha256(body.encode()).hexdigest() for body in bodies]
    db.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?)", zip(hashes, bodies, strict=True))
    return hashes


def new_uid() -> str:
    """A name that no other row has, in whatever ledger: ledgers of several workers are merged."""
    return uuid.uuid4().hex
