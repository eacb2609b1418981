"""Evidence: a pair's readings by the names of the lenses."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from auditor.errors import NoBase, Refused
from auditor.lenses import BASE, NONE, Lens
from auditor.readings import Reading, together
from auditor.records.record import Record

NEUTRAL = "another model"  # what agents are told: a folder's name may tell whose pair it is
BASELESS = "no base was known: what was trained cannot be told from what the model was before"

R = TypeVar("R", bound=Reading)

TOGETHER = "all together"  # among the verdicts


class Cost(Record):
    """What a reading took when it was computed."""

    seconds: float
    base_tokens: int
    finetuned_tokens: int
    other_tokens: int = 0  # of models beside the pair
    judged: int


@dataclass(frozen=True, repr=False)
class Evidence(Mapping[str, Reading]):
    """What was read of a pair, in the order of the lenses' needs, and what was not, with the reason."""

    pair: str
    fingerprint: str
    corpus: str
    readings: Mapping[str, Reading]
    failed: Mapping[str, str] = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    settings: Mapping[str, Record] = field(default_factory=dict)  # of each lens
    lenses: Mapping[str, Lens] = field(default_factory=dict)
    unfinished: frozenset[str] = frozenset()  # of those that failed: a judge's failure lost them, another try may not
    has_base: bool = True
    kept_under: Mapping[str, str] = field(default_factory=dict)  # the key of each reading
    sources: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of `base` and `finetuned`, see Weights

    def __getitem__(self, name: str) -> Reading:
        return self.readings[name]

    def __repr__(self) -> str:
        lost = f", not read: {', '.join(self.failed)}" if self.failed else ""
        return f"<Evidence of {self.pair or 'a pair'} on {self.corpus}: {', '.join(self.readings)}{lost}>"

    def _repr_html_(self) -> str:
        from auditor.views.notebook import framed
        from auditor.views.whole import page_of

        return framed(page_of(self))

    def __iter__(self) -> Iterator[str]:
        return iter(self.readings)

    def __len__(self) -> int:
        return len(self.readings)

    def reading(self, name: str, kind: type[R]) -> R:
        """Raises Refused if it was not read, or if another lens of this name gave another kind."""
        found = self.readings.get(name)
        if found is None:
            reason = self.failed.get(name, "it was not asked for")
            raise Refused(f"{name} was not read: {reason}")
        if not isinstance(found, kind):
            raise Refused(f"{name} is a {type(found).__name__}, where {kind.__name__} is needed")
        return found

    def called(self, pair: str) -> Evidence:
        """The same under another name of the pair."""
        return replace(self, pair=pair)

    def blinded(self, pair: str, name: str) -> Evidence:
        """The same without what tells whose it is: reasons, and what a lens was held against, may name files."""
        reasons = {name: why if why == NoBase.reason else "it failed" for name, why in self.failed.items()}
        settings = dict(self.settings)
        for lens, field_name, _ in self._others():
            settings[lens] = settings[lens].model_copy(update={field_name: NEUTRAL})
        return replace(
            self, pair=pair, fingerprint="", corpus=name, failed=reasons, settings=settings, kept_under={}, sources={}
        )  # fmt: skip

    def _others(self) -> list[tuple[str, str, str]]:
        """Lenses that were held against another model: name, field of the settings, and the model."""
        fields = [(name, field_name) for name in self.readings if name in self.lenses
                  for field_name in self.lenses[name].compared]  # fmt: skip
        told = [(name, field_name, getattr(self.settings[name], field_name)) for name, field_name in fields]
        return [each for each in told if each[2] not in (BASE, NONE)]

    def only(self, names: Iterable[str]) -> Evidence:
        """The same with these readings and what they build on alone, as far as they are there."""
        kept = {each for name in names for each in (name, *self.needs(name))}
        readings = {name: reading for name, reading in self.readings.items() if name in kept}
        failed = {name: why for name, why in self.failed.items() if name in kept}
        kept_under = {name: key for name, key in self.kept_under.items() if name in readings}
        return replace(self, readings=readings, failed=failed, kept_under=kept_under)

    @property
    def notes(self) -> list[str]:
        """What was compared with another model than the base, what was not read, and what the readings lack."""
        short = [line for reading in self.readings.values() for line in reading.notes]
        lost = [f"{name} was not read: {reason}" for name, reason in self.failed.items()]
        against = [f"{name} compares with {model}, not with the base" for name, _, model in self._others()]
        return [*([] if self.has_base else [BASELESS]), *against, *lost, *dict.fromkeys(short)]

    @property
    def verdicts(self) -> dict[str, str]:
        """Each lens' line against chance, where it has one; where several were tested, first what they come to."""
        all_of_them = together(self.readings)
        first = {TOGETHER: all_of_them.verdict} if all_of_them is not None and all_of_them.tested > 1 else {}
        return first | {name: reading.verdict for name, reading in self.readings.items() if reading.verdict}

    def above_chance(self, name: str) -> bool | None:
        """Whether what this lens reads stands above chance: by its own test, or that of another over the same needs.

        None where neither was tested.
        """
        if (own := self[name].above_chance) is not None:
            return own
        needs = self.needs(name)
        others = [
            reading.above_chance
            for other, reading in self.readings.items()
            if reading.above_chance is not None and self.needs(other) and self.needs(other) <= needs
        ]
        return any(others) if others else None

    def needs(self, name: str) -> set[str]:
        """All lenses that this one builds on."""
        direct = self.lenses[name].needs if name in self.lenses else ()
        return {*direct, *(need for other in direct for need in self.needs(other))}

    def to_json(self) -> dict[str, Any]:
        """What `auditor evidence --json` prints."""
        return {
            "pair": self.pair,
            "fingerprint": self.fingerprint,
            "sources": {side: list(told) for side, told in self.sources.items()},
            "corpus": self.corpus,
            "has_base": self.has_base,
            "readings": {name: reading.model_dump(mode="json") for name, reading in self.readings.items()},
            "settings": {name: settings.model_dump(mode="json") for name, settings in self.settings.items()},
            "failed": dict(self.failed),
            "costs": {name: cost.model_dump() for name, cost in self.costs.items()},
        }
