"""What figures are drawn from: runs side by side and studies, their organisms by family and model."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from auditor.errors import BadFile, UsageError
from auditor.records.cards import Organism
from auditor.records.checked import CheckReport
from auditor.records.comparison import Cell, Comparison
from auditor.records.public import DEFAULT
from auditor.shelves import Shelf
from auditor.studies.records import Series, Study

T = TypeVar("T")

FAMILIES = {"sdf": "SDF", "em": "EM", "subliminal": "Subliminal", "taboo": "Taboo", "domain": "Domain"}


@dataclass(frozen=True, slots=True)
class Kind:
    """An organism's family and model, as the paper's axes have them."""

    family: str
    model: str
    subject: str  # the organism without its model
    base_to_chat: bool = False  # compared with what its chat model was pretrained as
    variant: str = DEFAULT

    def __str__(self) -> str:
        return f"{FAMILIES.get(self.family, self.family)} {self.model}"


def usual(kind: Kind) -> bool:
    """As published, and compared with the model that it was finetuned from."""
    return not kind.base_to_chat and kind.variant == DEFAULT


@dataclass(frozen=True)
class Sources:
    """Runs, compared, and studies by name; several studies of one name are laid side by side."""

    organisms: Shelf[Organism]
    comparison: Comparison | None = None
    studies: Mapping[str, Sequence[Study]] = field(default_factory=dict)
    checks: Sequence[CheckReport] = ()
    singly: Sequence[tuple[int, Comparison]] = ()  # runs whose agents saw one position alone

    def kind(self, organism: str) -> Kind:
        """Of an organism that a workspace knows; of any other its family is not known."""
        subject, at, which = organism.partition("@")
        try:
            card = self.organisms[organism]
        except UsageError:
            return Kind("unknown", which or "–", subject)
        model = which.partition(":")[0] if at else card.base.rpartition("/")[2]
        return Kind(card.family, model, subject, card.adapter_base is not None, which.partition(":")[2] or DEFAULT)

    def study(self, name: str, command: str) -> Sequence[Study]:
        """All of that name. Raises UsageError with the command that makes one."""
        if not (found := self.studies.get(name)):
            raise UsageError(f"it needs the study {name}: {command}")
        return found

    def runs(self, command: str) -> Comparison:
        """The runs side by side. Raises UsageError with the command that makes one."""
        if self.comparison is None or not self.comparison.cells:
            raise UsageError(f"it needs a run with grades: {command}")
        return self.comparison

    def cells(self, command: str) -> list[Cell]:
        """Each contender's grades of each organism, by the first grader."""
        found = self.runs(command)
        return [cell for cell in found.cells if cell.grader == found.graders[0]]


def read_json(path: Path) -> Study | CheckReport:
    """What `auditor study` or `auditor organisms check --json` has written. Raises BadFile."""
    try:
        data = json.loads(path.read_text("utf-8"))
        return (Study if "study" in data else CheckReport).model_validate(data)
    except (OSError, ValueError, TypeError) as error:  # of which a validation error is one
        raise BadFile(path, "is neither a study's JSON nor a check's, and no run's folder") from error


def grouped(values: Iterable[tuple[str, T]]) -> dict[str, list[T]]:
    """By the first of each pair, in the order in which they come."""
    found: dict[str, list[T]] = defaultdict(list)
    for key, value in values:
        found[key].append(value)
    return dict(found)


def averaged(label: str, groups: Mapping[str, Sequence[float]]) -> Series:
    """A bar for each group: the mean over its variants, with their standard deviation (0 of one alone)."""
    return Series(
        label=label, x=tuple(groups), y=tuple(float(np.mean(values)) for values in groups.values()),
        spread=tuple(float(np.std(values, ddof=1)) if len(values) > 1 else 0.0 for values in groups.values()),
    )  # fmt: skip


def curve(label: str, curves: Iterable[Sequence[tuple[float, float]]]) -> Series:
    """One curve of several: mean and standard deviation wherever any of them has a value."""
    places: dict[float, list[float]] = defaultdict(list)
    for points in curves:
        for x, y in points:
            places[x].append(y)
    xs = sorted(places)
    return Series(
        label=label, x=tuple(xs), y=tuple(float(np.mean(places[x])) for x in xs),
        spread=tuple(float(np.std(places[x], ddof=1)) if len(places[x]) > 1 else 0.0 for x in xs),
    )  # fmt: skip
