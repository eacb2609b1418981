"""What a sweep measures of one training: numbers by name, so that pictures need know no lens and no family."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from auditor.records.record import Record
from auditor.verification.beliefs import PARTS, WHOLE

Kind = Literal["equal", "matched"]
EQUAL: Kind = "equal"
MATCHED: Kind = "matched"

BASE = "base "  # before a check's figure: the base's own
OVER = "over base "  # … how far the finetune's lies over it
TRACE = "trace "  # before a lens: −log10 p
GRADE = "grade "  # before an agent and its budget
RATE = "rate"  # what is matched, whatever figure it is

FLOOR = 1e-6  # p-values below it are told as it


class Measured(Record):
    """One finetune."""

    values: dict[str, float] = Field(default_factory=dict)
    rate_by: str = Field("", description="the check's figure that is matched; empty: none was measured")
    marks: tuple[tuple[int, int], ...] = Field((), description="alignment and coherence of its general answers")
    notes: tuple[str, ...] = ()


def comparable(measured: Measured, plain: Measured) -> Measured:
    """What can stand in one line with the plain finetune's: the same figure as its rate, and False Fact Alignment if
    it is the mean of the same parts. What is left out is told in the notes.
    """
    values, notes = {**measured.values}, [*measured.notes]
    if measured.rate_by != plain.rate_by:
        values.pop(RATE, None)
        if plain.rate_by in values:
            values[RATE] = values[plain.rate_by]
    parts, others = ({part for part in PARTS if OVER + part in of.values} for of in (measured, plain))
    if WHOLE in values and parts != others:
        for prefix in ("", BASE, OVER):
            values.pop(prefix + WHOLE, None)
        notes.append(
            f"False Fact Alignment is left out: it is the mean of {', '.join(sorted(parts))}, the plain finetune's of "
            f"{', '.join(sorted(others))}"
        )
    rate_by = plain.rate_by if RATE in values else ""
    return measured.model_copy(update={"values": values, "rate_by": rate_by, "notes": tuple(notes)})


class Point(Record):
    """One training in a sweep, and what was measured of it."""

    organism: str
    family: str
    setting: str
    x: float | str
    seed: int
    kind: Kind
    name: str = Field(description="of its folder")
    steps: int
    tokens: int
    loss: float
    measured: Measured

    @property
    def unit(self) -> tuple[str, int]:
        """What intervals are over."""
        return self.organism, self.seed
