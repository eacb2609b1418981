"""Finished calls of chat models, written down: a resumed run pays for none of them again."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from auditor.errors import BadFile
from auditor.lines import add_line, read_lines
from auditor.records.results import LlmUse, TokenUse

FIGURES = ("attempts", "seconds", "tokens_in", "tokens_out", "tokens_cached", "cost_usd")  # of a call
_ENTRY = {"key", "purpose", "hosted", "usable", "reply", *FIGURES}  # what a call's line must have to be used again


class Journal(Protocol):
    """Where finished calls are kept, so that a resumed run repeats none."""

    def find(self, key: str) -> dict[str, Any] | None: ...
    def add(self, key: str, entry: dict[str, Any]) -> None: ...


class CallLog:
    """A Journal in `calls.jsonl`: each finished call on a line, with what was sent since the call before."""

    def __init__(self, path: Path) -> None:
        """Raises BadFile with the line that is no call."""
        self._path, self._lock = path, threading.Lock()
        self._calls: list[dict[str, Any]] = []
        self._usable: dict[str, dict[str, Any]] = {}
        self._sent: dict[str, list[str]] = defaultdict(list)
        for number, entry in read_lines(path):
            if missing := _ENTRY - entry.keys():
                told = f"not a call: it lacks {', '.join(sorted(missing))}; without this line the call is made again"
                raise BadFile(path, told, number)
            self._note(entry)

    def _note(self, entry: dict[str, Any]) -> None:
        self._calls.append(entry)
        if entry["usable"]:
            self._usable[entry["key"]] = entry

    def find(self, key: str) -> dict[str, Any] | None:
        with self._lock:
            return self._usable.get(key)

    def used(self, role_of: Callable[[str], str]) -> dict[str, LlmUse]:
        """The sums of all calls of hosted models, by the role that `role_of` gives to a call's purpose."""
        roles: dict[str, list[dict[str, Any]]] = defaultdict(list)
        with self._lock:
            for call in self._calls:
                if call["hosted"]:
                    roles[role_of(call["purpose"])].append(call)
        return {role: _sums(roles[role]) for role in sorted(roles)}

    def add(self, key: str, entry: dict[str, Any]) -> None:
        with self._lock:
            before, sent = self._sent[entry["purpose"]], entry["sent"]
            marks = [json.dumps(message, sort_keys=True) for message in sent]
            same = 0
            while same < min(len(before), len(marks)) and before[same] == marks[same]:
                same += 1
            line = {"key": key, **entry, "sent_before": same, "sent": sent[same:]}
            add_line(self._path, json.dumps(line, ensure_ascii=False, default=str))
            self._sent[entry["purpose"]] = marks
            self._note(line)


class NoJournal:
    """Keeps nothing: for calls outside a run."""

    def find(self, key: str) -> None:
        return None

    def add(self, key: str, entry: dict[str, Any]) -> None:
        return None


def _sums(calls: Sequence[dict[str, Any]]) -> LlmUse:
    def total(figure: str) -> Any:
        values = [call[figure] for call in calls]
        return None if None in values else sum(values)

    told = total("tokens_in"), total("tokens_out")
    tokens = None if None in told else TokenUse(input=told[0], output=told[1])
    return LlmUse(calls=len(calls), tokens=tokens, cost_usd=total("cost_usd"))
