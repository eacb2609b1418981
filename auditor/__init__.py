"""auditor: find out what a model was finetuned for.

Plugin files import from here, and so do notebooks (`auditor/door.py`); everything is loaded on first use, so that
`auditor --help` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from auditor.door import evaluate, load_run, pair
    from auditor.evidence.mapping import Evidence
    from auditor.lenses import Compared, Judged, LensContext, lens
    from auditor.models.pair import ModelPair
    from auditor.plugins import Args, Context, GraderContext, grader, tool
    from auditor.readings import Figures, RankedTokens, Reading, SideBySide, SmallTable
    from auditor.records.cards import Organism, Rubric
    from auditor.records.evidence import ScaleChoice, TokenSet
    from auditor.records.findings import Grade
    from auditor.records.record import Record
    from auditor.records.results import AuditRecord

__version__ = "0.1.0"
_FROM = {
    "auditor.door": ("evaluate", "load_run", "pair"),
    "auditor.evidence.mapping": ("Evidence",),
    "auditor.lenses": ("Compared", "Judged", "LensContext", "lens"),
    "auditor.models.pair": ("ModelPair",),
    "auditor.plugins": ("Args", "Context", "GraderContext", "grader", "tool"),
    "auditor.readings": ("Figures", "RankedTokens", "Reading", "SideBySide", "SmallTable"),
    "auditor.records.cards": ("Organism", "Rubric"),
    "auditor.records.evidence": ("ScaleChoice", "TokenSet"),
    "auditor.records.findings": ("Grade",),
    "auditor.records.record": ("Record",),
    "auditor.records.results": ("AuditRecord",),
}
_MODULES = {name: module for module, names in _FROM.items() for name in names}
__all__ = [
    "Args",
    "AuditRecord",
    "Compared",
    "Context",
    "Evidence",
    "Figures",
    "Grade",
    "GraderContext",
    "Judged",
    "LensContext",
    "ModelPair",
    "Organism",
    "RankedTokens",
    "Reading",
    "Record",
    "Rubric",
    "ScaleChoice",
    "SideBySide",
    "SmallTable",
    "TokenSet",
    "evaluate",
    "grader",
    "lens",
    "load_run",
    "pair",
    "tool",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'auditor' has no attribute {name!r}")
