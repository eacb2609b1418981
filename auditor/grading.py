"""Calls of graders: whatever a grader raises or gives that is no verdict is told with its name and line."""

from __future__ import annotations

import functools
import inspect
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from pydantic import ValidationError

from auditor.errors import AuditorError, GraderFailed, UsageError
from auditor.llm.spec import OFFLINE
from auditor.records.cards import Organism, Rubric
from auditor.records.evidence import ScaleChoice
from auditor.records.findings import Grade
from auditor.records.results import AuditRecord

if TYPE_CHECKING:
    from auditor.plugins import Grader, GraderContext

GraderKind = Literal["hypothesis", "coherence", "patchscope_scale", "token_relevance"]


class JudgesHypotheses(Protocol):
    """A grader of kind `hypothesis`."""

    def __call__(self, audit: AuditRecord, organism: Organism, rubric: Rubric, ctx: GraderContext, /) -> Grade: ...


@dataclass(frozen=True, slots=True)
class Kind:
    """What all graders of a kind have in common."""

    takes: tuple[int, ...]  # numbers of arguments, the context among them where it is wanted
    problem: Callable[[Any, Sequence[Any]], str]  # of a verdict on these arguments; empty if there is none


def guarded(run: Callable[..., Any], name: str, kind: GraderKind, count: int) -> Callable[..., Any]:
    """`run`, given its first `count` arguments. What it returns is checked; it raises nothing but AuditorError."""

    @functools.wraps(run)
    def judge(*given: Any) -> Any:
        try:
            found = run(*given[:count])
        except AuditorError:
            raise
        except (Exception, SystemExit) as error:
            told = " ".join(str(error).split())[:300]
            raise GraderFailed(f"grader {name} raised {type(error).__name__}: {told}{_place(run, error)}") from error
        if problem := KINDS[kind].problem(found, given):
            raise GraderFailed(f"grader {name}: {problem}")
        return found

    return judge


def llm_variants(graders: Mapping[str, Grader], judge: Callable[[GraderKind], str]) -> dict[str, str]:
    """What stands in for which grader where an LLM judges its kind (`judge`); nothing where that is `offline`.

    Raises UsageError if two would stand in for one.
    """
    found: dict[str, str] = {}
    for each in graders.values():
        if judge(each.kind) == OFFLINE:
            continue
        if each.instead_of and (other := found.get(each.instead_of)):
            raise UsageError(f"graders {other} and {each.name} would both stand in for {each.instead_of}; drop one")
        if each.instead_of:
            found[each.instead_of] = each.name
    return found


def _no_grade(found: Any, _given: Sequence[Any]) -> str:
    if not isinstance(found, Grade):
        return f"it gave {type(found).__name__}, not a Grade"
    try:
        Grade.model_validate(found.model_dump())  # a copy may have been changed without a check
    except ValidationError as error:
        first = error.errors()[0]
        return f"its {'.'.join(map(str, first['loc']))} is {first['input']!r}: {first['msg']}"
    return ""


def _no_scale(found: Any, given: Sequence[Any]) -> str:
    if not isinstance(found, ScaleChoice):
        return f"it gave {type(found).__name__}, not a ScaleChoice"
    if found.scale not in {candidate.scale for candidate in given[0]} or not math.isfinite(found.cohesion):
        return f"it chose the scale {found.scale:g} with cohesion {found.cohesion:g}, which was not to be had"
    return ""


def _no_flags(found: Any, given: Sequence[Any]) -> str:
    wanted = len(given[0])
    if not isinstance(found, (list, tuple)) or not all(isinstance(value, bool) for value in found):
        return f"it gave {type(found).__name__}, not a list of True and False"
    return "" if len(found) == wanted else f"it gave {len(found)} verdicts on {wanted}"


KINDS: Mapping[GraderKind, Kind] = {
    "hypothesis": Kind((3, 4), _no_grade), "coherence": Kind((3,), _no_flags),
    "patchscope_scale": Kind((2,), _no_scale), "token_relevance": Kind((4,), _no_flags),
}  # fmt: skip


def _place(run: Callable[..., Any], error: BaseException) -> str:
    """The last line of the grader's own file that `error` passed."""
    file = inspect.getsourcefile(run if inspect.isroutine(run) else type(run))
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(file).name}:{lines[-1]})" if file and lines else ""
