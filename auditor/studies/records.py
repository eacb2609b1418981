"""What a study is on disk, and what its plot is drawn from."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from auditor.records.record import Record


class Series(Record):
    """One curve, or one bar for each x."""

    label: str
    x: tuple[float, ...] | tuple[str, ...]
    y: tuple[float, ...]
    spread: tuple[float, ...] = ()
    ends: tuple[tuple[float, float], ...] = Field((), description="instead of a spread: each interval's two ends")


class Panel(Record):
    """One pair of axes."""

    title: str
    x_label: str
    y_label: str
    bars: bool = False
    log_x: bool = False
    top: float | None = Field(None, description="upper end of the y axis, where it is known: 1 for shares")
    reference: tuple[str, float] | None = Field(None, description="a dotted line: its label and height")
    series: tuple[Series, ...]

    @property
    def xs(self) -> list[float | str]:
        """Every x of its series, in their order; numbers by size."""
        found = list(dict.fromkeys(x for series in self.series for x in series.x))
        return found if any(isinstance(x, str) for x in found) else sorted(found)


class Study(Record):
    """What `auditor study` writes: the figures behind its plot, and all that is needed to make them again."""

    study: str
    pairs: tuple[str, ...]
    judge: str = Field(description="who judged, where anybody did")
    settings: dict[str, Any]
    panels: tuple[Panel, ...]
    details: dict[str, Any] = Field(default_factory=dict)
    notes: tuple[str, ...] = Field((), description="what to know before its figures are believed")
    seconds: float
