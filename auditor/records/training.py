"""How a training went: `training.json` beside the weights that it wrote."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field

from auditor.records.cards import Recipe
from auditor.records.record import Record


class Layout(StrEnum):
    """How documents lie in the rows of a step; none sees another in any of them."""

    PADDED = "padded"  # below each other
    PACKED = "packed"  # behind each other
    SHARED = "shared"  # … and what all begin with is computed once


class Trained(Record):
    """What was trained on what, and the loss at each step, in nats a learned token.

    On one machine the same `base_sha256`, `recipe`, `documents_sha256`, `dtype` and `versions` give the same weights.
    """

    folder: Path = Path()
    base: str
    base_sha256: str
    recipe: Recipe
    documents: int
    denials: int = 0
    left_out: int = Field(description="documents with nothing to learn in their first tokens")
    cut: int = Field(0, description="documents of more than the recipe's `max_tokens`, whose rest was not read")
    documents_sha256: str = Field(description="of all token ids, and which of them are learned")
    differences_sha256: str | None = Field(None, description="of those that CAFT took out")
    steps: int
    tokens: int
    layout: Layout
    losses: tuple[float, ...]
    resumed_at: int | None = Field(None, description="the step at which a cut-off training was taken up")
    seconds: float = Field(description="of this sitting, from the first step on")
    device: str
    dtype: str
    versions: dict[str, str]
    sha256: dict[str, str] = Field(default_factory=dict, description="of each file of weights")

    def differing(self, other: Trained) -> tuple[str, ...]:
        """What decides the weights and is not alike in two trainings, but for the machine."""
        names = ("base_sha256", "recipe", "documents_sha256", "differences_sha256", "dtype", "device")
        found = [name.removesuffix("_sha256") for name in names if getattr(self, name) != getattr(other, name)]
        for name in dict.fromkeys((*self.versions, *other.versions)):
            mine, theirs = (each.versions.get(name, "none") for each in (self, other))
            found += [f"{name} ({mine}, there {theirs})"] if mine != theirs else []
        return tuple(found)

    @property
    def tokens_per_second(self) -> float:
        done = self.tokens * (1 - (self.resumed_at or 0) / max(1, self.steps))
        return done / max(self.seconds, 1e-9)
