"""auditor: find out what a model was finetuned for.

Plugin files import from here; everything is loaded on first use, so that `auditor --help` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auditor.plugins import Args, Context, GraderContext, grader, tool
    from auditor.types import (
        AuditRecord,
        Evidence,
        Grade,
        Organism,
        Rubric,
        ScaleChoice,
        TokenSet,
    )

__version__ = "0.1.0"
__all__ = [
    "Args",
    "AuditRecord",
    "Context",
    "Evidence",
    "Grade",
    "GraderContext",
    "Organism",
    "Rubric",
    "ScaleChoice",
    "TokenSet",
    "grader",
    "tool",
]

_IN_PLUGINS = {"Args", "Context", "GraderContext", "grader", "tool"}


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("auditor.plugins" if name in _IN_PLUGINS else "auditor.types"), name)
    raise AttributeError(f"module 'auditor' has no attribute {name!r}")
