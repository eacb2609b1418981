"""Hypotheses that people have graded: read, checked, and put together where several graded one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

from pydantic import ValidationError

from auditor.errors import BadFile, UnknownName, UsageError
from auditor.records.calibration import Label
from auditor.records.cards import Organism
from auditor.records.findings import Hypothesis
from auditor.records.results import AuditRecord
from auditor.text import visible
from auditor.workspace import Workspace

ENOUGH = 20  # labelled hypotheses; of fewer, kappa's interval is nearly as wide as the scale
LEVELS = (1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A hypothesis with the grade of each of its labellers. `line`: of the file, where it is first."""

    card: Organism
    hypothesis: str
    findings: Hypothesis | None
    line: int
    told_as: str
    grades: dict[str, int] = field(default_factory=dict)

    @property
    def label(self) -> float:
        """What the labellers say, on average."""
        return mean(self.grades.values())

    @property
    def key(self) -> str:
        """What a judge's calls are kept under: the same wherever it stands, and whatever it is called."""
        parts = [self.card.name, self.hypothesis, self.findings.model_dump(mode="json") if self.findings else None]
        return f"label-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"

    def record(self) -> AuditRecord:
        """It as graders are given it: an audit that concluded so."""
        return AuditRecord(
            id=self.key, organism=self.card.name, family=self.card.family, agent="label", budget=0, repeat=0,
            status="done", hypothesis=self.hypothesis, findings=self.findings,
        )  # fmt: skip


def read_labels(path: Path, ws: Workspace) -> list[Labelled]:
    """The labelled hypotheses of a file of JSON lines, in its order. Raises BadFile with the line that is wrong."""
    found: dict[tuple[str, str, str], Labelled] = {}
    ids: dict[str, Labelled] = {}
    for line, label in _labels(path):
        findings = label.findings.model_dump_json() if label.findings else ""
        key = (label.organism, label.hypothesis, findings)
        if key not in found:
            card = _card(label.organism, ws, path, line)
            told_as = label.id or f"line {line}"
            found[key] = Labelled(card, label.hypothesis, label.findings, line, visible(told_as, 60))
        item = found[key]
        if label.id and ids.setdefault(label.id, item) is not item:
            told = f"id {visible(label.id, 60)!r} is another hypothesis' in line {ids[label.id].line}"
            raise BadFile(path, told, line)
        if label.labeller in item.grades:
            who = f"labeller {visible(label.labeller, 60)!r}" if label.labeller else "nobody named"
            told = f"{who} graded this hypothesis before (line {item.line}); give each labeller a name of their own"
            raise BadFile(path, told, line)
        item.grades[label.labeller] = label.grade
    return list(found.values())


def demand_enough(labels: list[Labelled], path: Path) -> None:
    """Raises UsageError for labels that no kappa can be had of."""
    if len(labels) < ENOUGH:
        raise UsageError(f"{path}: {len(labels)} labelled hypotheses are too few for a kappa; label {ENOUGH} or more")
    if len(given := {round(each.label) for each in labels}) == 1:
        told = f"all {len(labels)} hypotheses are labelled {given.pop()}: kappa is undefined"
        raise UsageError(f"{path}: {told}; label hypotheses of every level")


def labellers_of(labels: Iterable[Labelled]) -> tuple[str, ...]:
    """All who are named."""
    return tuple(sorted({who for each in labels for who in each.grades if who}))


def sha256_of_labels(labels: Iterable[Labelled]) -> str:
    """Of what is labelled, and how; not of the lines' order, or of ids."""
    told = sorted(json.dumps([each.key, sorted(each.grades.items())]) for each in labels)
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def _labels(path: Path) -> Iterable[tuple[int, Label]]:
    try:
        lines = path.read_text("utf-8-sig").split("\n")  # not at U+2028 and its like, which stand inside texts
    except OSError as error:
        raise BadFile(path, f"cannot be read ({error.strerror or error})") from error
    except UnicodeDecodeError as error:
        raise BadFile(path, "is no UTF-8 text") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, _label(line, path, number)


def _label(line: str, path: Path, number: int) -> Label:
    try:
        value: Any = json.loads(line)
        if not isinstance(value, dict):
            raise ValueError
    except (ValueError, RecursionError) as error:
        told = 'not a JSON object; write {"organism": …, "hypothesis": …, "grade": 1 to 5} in one line'
        raise BadFile(path, told, number) from error
    try:
        return Label.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        name, given = ".".join(map(str, first["loc"])), first["input"]
        if first["type"] == "missing":
            told = f"{name}: is missing"
        elif first["type"] == "extra_forbidden":
            told = f"{visible(name, 60)}: is no field of a label; there are {', '.join(Label.model_fields)}"
        elif name == "grade":
            told = f"grade: give 1, 2, 3, 4 or 5, not {visible(json.dumps(given), 60)}"
        else:
            told = f"{name}: {visible(first['msg'])}, not {visible(json.dumps(given, default=str), 60)}"
        raise BadFile(path, told, number) from error


def _card(name: str, ws: Workspace, path: Path, line: int) -> Organism:
    try:
        return ws.organisms[name]
    except UnknownName as error:
        raise BadFile(path, f"organism: {error}", line) from error
