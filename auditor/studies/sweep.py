"""Sweeps: organisms trained in several ways, each measured at first and once its behaviour shows as often as plain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from auditor.records.cards import Organism
from auditor.records.training import Trained
from auditor.studies.designs import Design, Setting
from auditor.studies.matching import Tried, match
from auditor.studies.measure import Probe
from auditor.studies.points import BASE, EQUAL, MATCHED, RATE, Kind, Measured, Point, comparable
from auditor.studies.variants import Choices, Variant, demand, trained, variant_of, with_steps


@dataclass(frozen=True, slots=True)
class Matching:
    """How near a rate has to come to the plain one's, and how many trainings may be spent on it."""

    band: float = 0.1
    tries: int = 1


@dataclass
class Swept:
    """What a sweep found, and what one must know of it."""

    points: list[Point] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sweep:
    """A design over organisms. `matching`: none for equal steps alone."""

    design: Design
    choices: Choices
    matching: Matching | None
    probe: Probe

    @property
    def seeds(self) -> tuple[int | None, ...]:
        """None is each recipe's own."""
        return self.choices.seeds or (None,)

    def planned(self, card: Organism, seed: int | None) -> list[Variant]:
        """What is trained first of an organism, the plain one before all. Raises UsageError for what would fail."""
        folder = self.probe.folder
        found = [variant_of(card, setting, self.choices, seed, folder) for setting in self.design.settings]
        for variant in found:
            demand(variant, self.probe.conf)
        return found

    def run(self, cards: Sequence[Organism]) -> Swept:
        """Train what is missing and measure it, one finetune in memory at a time. Raises UsageError."""
        found, plans = Swept(), [(seed, self.planned(card, seed)) for card in cards for seed in self.seeds]
        for seed, variants in plans:
            self._one(seed, variants, found)
        return found

    def _one(self, seed: int | None, variants: Sequence[Variant], found: Swept) -> None:
        """Every setting of one organism with one seed."""
        plain, wanted, first = variants[0], None, Measured()
        for variant in variants:
            made = self._trained(variant, plain)
            measured = self.probe.whole(variant.card)
            if variant is plain:
                first, wanted = measured, self._wanted(plain, measured, found)
            measured = comparable(measured, first)
            found.points.append(_point(variant, made, measured, EQUAL))
            if self.matching is None or wanted is None:
                continue
            if (rate := measured.values.get(RATE)) is None:
                found.notes.append(
                    f"{variant.parent.name}, {variant.setting.name}: no rate was matched; it has no {first.rate_by}"
                )
                continue
            at, made = self._matched(variant, made, plain, seed, (rate, wanted), first, found)
            if at is not None:
                measured = measured if at is variant else comparable(self.probe.whole(at.card), first)
                found.points.append(_point(at, made, measured, MATCHED))

    def _wanted(self, plain: Variant, measured: Measured, found: Swept) -> float | None:
        """The plain one's rate, if it is one that can be matched: what was not learned is matched by anything."""
        rate, base = measured.values.get(RATE), measured.values.get(BASE + measured.rate_by, 0.0)
        if self.matching is None or (rate is not None and rate - base > self.matching.band):
            return rate
        why = (
            "its checks tell none"
            if rate is None
            else f"the plain finetune's {rate:.2f} is hardly over its base's {base:.2f}"
        )
        found.notes.append(
            f"{plain.parent.name}: no rate was matched; {why}" + ("" if rate is None else ", give more --steps")
        )
        return None

    def _matched(
        self,
        variant: Variant,
        made: Trained,
        plain: Variant,
        seed: int | None,
        rates: tuple[float, float],
        first: Measured,
        found: Swept,
    ) -> tuple[Variant | None, Trained]:
        """The training of this setting whose rate is the plain one's: the first one (`made`) if that is near enough.

        `rates`: its own, and the plain one's; `first`: all that was measured of the plain one.
        """
        assert self.matching is not None
        (rate, wanted), band = rates, self.matching.band
        begun = Tried(variant.recipe.steps or made.steps, rate)
        trainings = {begun.steps: (variant, made)}

        def rate_of(steps: int) -> float:
            other = with_steps(variant, steps, self.probe.folder, seed)
            trainings[steps] = other, self._trained(other, plain)
            return comparable(self.probe.rate(other.card), first).values.get(RATE, math.nan)

        at, tried = match(begun, wanted, band, variant.setting.passes, self.matching.tries, rate_of)
        if at is not None:
            return trainings[at.steps]
        told = ", ".join(f"{each.rate:.2f} after {each.steps} steps" for each in tried)
        found.notes.append(
            f"{variant.parent.name}, {variant.setting.name}: no rate within {band:g} of the plain one's {wanted:.2f} "
            f"was reached ({told})"
        )
        return None, made

    def _trained(self, variant: Variant, plain: Variant) -> Trained:
        return trained(self.probe.ws, variant, plain, self.probe.conf, self.probe.tell)


def _point(variant: Variant, made: Trained, measured: Measured, kind: Kind) -> Point:
    setting: Setting = variant.setting
    return Point(
        organism=variant.parent.name, family=variant.parent.family, setting=setting.name, x=setting.x,
        seed=variant.recipe.seed, kind=kind, name=variant.card.name, steps=made.steps, tokens=made.tokens,
        loss=made.losses[-1], measured=measured,
    )  # fmt: skip
