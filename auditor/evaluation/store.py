"""A run's folder: run.json, audits.jsonl, calls.jsonl, transcripts, checkpoints; one process at a time."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from langchain_core.messages import BaseMessage, ToolMessage, messages_to_dict
from pydantic import ValidationError

from auditor.errors import BadFile, UsageError
from auditor.files import write_atomically
from auditor.lines import add_line, read_lines
from auditor.records.results import AuditRecord


class RunStore:
    """Writes so that a kill at any moment leaves whole files: lines are added, other files take their old one's place.

    Use it in a `with`: until its end no other process may work in the folder.
    """

    def __init__(self, folder: Path, lock: FileLock) -> None:
        self.folder = folder
        self.notes: list[str] = []  # what of the folder could not be used
        self._file_lock = lock
        self._lock = threading.Lock()  # audits end in several threads

    @classmethod
    def open(cls, folder: Path, request: Mapping[str, Any], made_with: Mapping[str, Any], *, resume: bool) -> RunStore:
        """Begin a run in `folder`, or go on with the one that lies there.

        `request` must be the same then, `made_with` need not. Raises UsageError if the folder cannot be written, if
        another process works in it, if it holds a run and `resume` is off, or if that was another request; BadFile
        if its run.json cannot be read.
        """
        try:
            (folder / "transcripts").mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / ".lock")
            lock.acquire(timeout=0)
        except Timeout as error:
            told = f"{folder}: another auditor is at work there; wait until it has ended, or choose another --name"
            raise UsageError(told) from error
        except (OSError, NotImplementedError) as error:  # some network disks know no locks
            told = str(getattr(error, "strerror", None) or error)
            raise UsageError(f"cannot write to {folder}: {told}; choose --out elsewhere") from error
        store = cls(folder, lock)
        try:
            store._begin(json.loads(json.dumps(request)), made_with, resume=resume)
        except BaseException:
            lock.release()
            raise
        return store

    def __enter__(self) -> RunStore:
        return self

    def __exit__(self, *_error: object) -> None:
        self._file_lock.release()

    def _begin(self, request: dict[str, Any], made_with: Mapping[str, Any], *, resume: bool) -> None:
        path = self.folder / "run.json"
        if not path.exists():
            if left := [name for name in ("audits.jsonl", "calls.jsonl", self.checkpoints.name)
                        if (self.folder / name).exists()]:  # fmt: skip
                raise BadFile(path, f"is missing beside {', '.join(left)}: whose they are is not known; "
                                    "choose another --name")  # fmt: skip
            write_atomically(path, json.dumps({**request, **made_with}, indent=1))
            return
        if not resume:
            raise UsageError(f"{self.folder} holds a run already; add --resume to finish it, or choose another --name")
        try:
            before = dict(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise BadFile(path, "cannot be read: what the run was is not known; choose another --name") from error
        if changed := [name for key in request for name in _changed(key, before.get(key), request[key])]:
            raise UsageError(f"{self.folder} was another run: {', '.join(changed)} differ; choose another --name")
        self._drop_broken_checkpoints()

    def _drop_broken_checkpoints(self) -> None:
        """Without checkpoints, audits that were cut off are walked again, with the calls that calls.jsonl keeps."""
        if self.checkpoints.exists() and not _is_sound(self.checkpoints):
            for suffix in ("", "-wal", "-shm"):
                self.checkpoints.with_name(self.checkpoints.name + suffix).unlink(missing_ok=True)
            self.notes.append(f"{self.checkpoints} is damaged; audits that were cut off begin anew, their calls kept")

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints.sqlite"

    def audits(self) -> list[AuditRecord]:
        """Finished audits; the last line for an id counts, and a line cut off by a kill is left out.

        Raises BadFile with the line that is no audit.
        """
        path = self.folder / "audits.jsonl"
        found: dict[str, AuditRecord] = {}
        for number, line in read_lines(path):
            try:
                record = AuditRecord.model_validate(line)
            except ValidationError as error:
                first = error.errors()[0]
                told = f"not an audit: {'.'.join(map(str, first['loc']))}: {first['msg']}"
                raise BadFile(path, f"{told}; without this line it is made again", number) from error
            found[record.id] = record
        return list(found.values())

    def append(self, record: AuditRecord) -> None:
        """Add a line to audits.jsonl."""
        with self._lock:
            add_line(self.folder / "audits.jsonl", record.model_dump_json())

    def write_transcript(self, audit_id: str, messages: Sequence[BaseMessage], about: Mapping[str, Any]) -> None:
        """Everything the agent was sent and answered, as it stands now."""
        body = {"id": audit_id, **about, "messages": messages_to_dict([_said(m) for m in messages])}
        path = self.folder / "transcripts" / f"{audit_id}.json"
        write_atomically(path, json.dumps(body, indent=1, default=str))


def _said(message: BaseMessage) -> BaseMessage:
    """Without the data of a tool's result, which its text tells."""
    return message.model_copy(update={"artifact": None}) if isinstance(message, ToolMessage) else message


def _changed(key: str, before: Any, now: Any) -> list[str]:
    """The names of what differs: `key`, or the parts of it if both are mappings."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [f"{key} {name}" for name in {**before, **now} if before.get(name) != now.get(name)]
    return [] if before == now else [key]


def _is_sound(database: Path) -> bool:
    try:
        with closing(sqlite3.connect(database)) as connection:
            return bool(connection.execute("PRAGMA integrity_check").fetchone() == ("ok",))
    except sqlite3.DatabaseError:
        return False
