"""Everything that `auditor` raises on purpose.

    AuditorError
    ├── UsageError            the user can mend it: one line that says what, where, what would be right
    │   ├── UnknownName       no such organism, agent, suite, tool …; names the nearest
    │   ├── BadFile           a broken YAML, prompt, card or plugin, with file and line
    │   └── BadModel          weights that are missing, unsafe, or do not fit their base
    ├── GraderFailed          a grader raised, or gave what is no verdict: its grade is missing
    └── Refused               a tool call that the agent may not make; becomes an observation
        ├── NoBase            what only a pair can tell was asked of a model whose base is not known
        └── TooLong           (a UsageError, too) more tokens than the model reads at once

What chat models add to it is in `llm/failures.py` and `llm/verdict.py`. Any other exception is a bug and is shown as
one.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class AuditorError(Exception):
    """Root of the tree above."""


class UsageError(AuditorError):
    """The request was wrong, and the message says how to mend it (exit code 2)."""


class InternalError(UsageError):
    """A bug of this program: whatever is under way stops, and what is there is kept."""


class UnknownName(UsageError):
    """No `kind` is called `name`."""

    def __init__(self, kind: str, name: str, known: Iterable[str], note: str = "") -> None:
        names = sorted(set(known))
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names) or 'none'}"
        super().__init__(f"no {kind} called {name!r}; {hint}{f' ({note})' if note else ''}")


class BadFile(UsageError):
    """A file of the workspace cannot be used."""

    def __init__(self, path: Path | str, reason: str, line: int | None = None) -> None:
        where = f"{path}:{line}" if line else str(path)
        super().__init__(f"{where}: {reason}")
        self.path, self.line, self.reason = Path(path), line, reason


class BadModel(UsageError):
    """Weights that are missing, unsafe, or that do not fit the base they are for."""

    code = "bad_model"


class GraderFailed(AuditorError):
    """A grader has a bug, or gave something that is no verdict."""


class Refused(AuditorError):
    """A tool call that is not allowed; its text is what the agent reads."""


class NoBase(Refused):
    """A base is needed, and none is known; the other lenses and tools go on."""

    reason = "it needs a base, and none is known"

    def __init__(self) -> None:
        super().__init__(self.reason)


class TooLong(Refused, UsageError):
    """A text that has more tokens than the model reads at once."""

    code = "context_length_exceeded"  # as OpenAI's API calls it
