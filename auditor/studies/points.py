"""What a sweep measures of one training: numbers by name, so that pictures need know no lens and no family."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from auditor.records.record import Record

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
