"""A run's folder: run.json, audits.jsonl, transcripts, checkpoints."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage, messages_to_dict

from auditor.errors import BadFile, UsageError
from auditor.types import AuditRecord

REQUEST = ("suite", "model", "base", "agent", "budget", "llm", "seed", "graders")  # what may not change on resuming


class RunStore:
    """Writes so that a kill at any moment leaves whole files: appends are one write, others a rename."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = threading.Lock()  # audits end in several threads

    @classmethod
    def open(cls, folder: Path, about: dict[str, Any], *, resume: bool) -> RunStore:
        """Begin a run in `folder`, or go on with the one that lies there.

        Raises UsageError if it cannot be written, if it exists and `resume` is off, or if what is to be
        resumed was another request.
        """
        store = cls(folder)
        try:
            (folder / "transcripts").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write to {folder}: {error.strerror or error}; choose --out elsewhere") from error
        path = folder / "run.json"
        if path.exists():
            if not resume:
                raise UsageError(f"{folder} holds a run already; add --resume to finish it, or choose another --name")
            before = json.loads(path.read_text())
            changed = [
                k
                for k in ("suite", "model", "base", "agent", "budget", "llm", "seed", "graders")
                if before.get(k) != about.get(k)
            ]
            if changed:
                raise UsageError(f"{folder} was another run: {', '.join(changed)} differ; choose another --name")
        else:
            store._replace(path, json.dumps(about, indent=1))
        return store

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints.sqlite"

    def audits(self) -> list[AuditRecord]:
        """Finished audits; the last line for an id counts, and a line cut off by a kill is left out."""
        path = self.folder / "audits.jsonl"
        if not path.exists():
            return []
        found: dict[str, AuditRecord] = {}
        lines = path.read_text().split("\n")
        for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is unfinished
            try:
                record = AuditRecord.model_validate_json(line)
            except ValueError as error:
                raise BadFile(path, f"not an audit: {error}", number) from error
            found[record.id] = record
        return list(found.values())

    def append(self, record: AuditRecord) -> None:
        """Add a line to audits.jsonl."""
        with self._lock:
            self._append(self.folder / "audits.jsonl", record)

    def _append(self, path: Path, record: AuditRecord) -> None:
        if path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            with path.open("r+b") as stream:  # a kill cut the last line off: drop it
                data = stream.read()
                stream.truncate(data.rfind(b"\n") + 1)
        with path.open("a") as stream:
            stream.write(record.model_dump_json() + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def write_transcript(self, audit_id: str, messages: Sequence[BaseMessage], about: dict[str, Any]) -> None:
        """Everything the agent was sent and answered, as it stands now."""
        body = {"id": audit_id, **about, "messages": messages_to_dict(messages)}
        self._replace(self.folder / "transcripts" / f"{audit_id}.json", json.dumps(body, indent=1, default=str))

    def _replace(self, path: Path, text: str) -> None:
        part = path.with_suffix(".part")
        part.write_text(text)
        os.replace(part, path)
