"""What `auditor gate` finds: each lens held against its null, and what carries the trace."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, computed_field

from auditor.records.record import Record

State = Literal["readable", "quiet", "covered", "untested", "failed"]
"""Of a lens: its trace is readable; its test found none; another's test over the same needs speaks for it; nothing
could be tested; it was not read."""


class Carrier(Record):
    """Words that carry a trace, where they were read, and texts that say some of them."""

    title: str
    where: str
    words: tuple[str, ...]
    texts: tuple[str, ...] = ()


class LensVerdict(Record):
    """One lens at the gate."""

    lens: str
    state: State
    p: float | None = None
    corrected: float | None = Field(None, description="the same as one of all tests (Holm)")
    finetunes: int | None = Field(None, description="without a subject, that it was held against; 0: noise alone")
    least: float = Field(0.0, description="the smallest p that its test can give")
    why: str = Field("", description="why nothing was tested, or who speaks for it")
    rests_on: tuple[str, ...] = ()
    carriers: tuple[Carrier, ...] = ()
    seconds: float = 0.0


class GateReport(Record):
    """Whether a finetune's trace is readable at a family-wise level, and by what."""

    model: str
    weights: str = Field(description="what `model` is loaded from; empty if it is not here")
    base: str
    sources: dict[str, tuple[str, ...]] = Field(
        {}, description="of `base` and `finetuned`: hub:ORG/NAME@COMMIT, tensors:SHA256"
    )
    suite: str
    corpus: str
    level: float
    strict: bool
    lenses: tuple[LensVerdict, ...]
    notes: tuple[str, ...] = ()

    @computed_field  # type: ignore[prop-decorator]
    @property
    def p(self) -> float | None:
        """How likely so strong a trace is in any of the lenses without a subject; None if nothing was tested."""
        return min((lens.corrected for lens in self.lenses if lens.corrected is not None), default=None)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def tested(self) -> int:
        """Tests that the level is shared by."""
        return sum(lens.p is not None for lens in self.lenses)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def readable(self) -> bool:
        return bool(self.of("readable"))

    @computed_field  # type: ignore[prop-decorator]
    @property
    def passed(self) -> bool:
        """No trace is readable, what was to be read was, and something could have been found (`strict`: by all)."""
        if self.readable or self.of("failed") or not self.of("quiet"):
            return False
        return not (self.strict and self.of("untested"))

    def of(self, state: State) -> tuple[LensVerdict, ...]:
        """The lenses in a state, the least p first."""
        found = [lens for lens in self.lenses if lens.state == state]
        return tuple(sorted(found, key=lambda lens: 1.0 if lens.p is None else lens.p))

    @property
    def strongest(self) -> LensVerdict | None:
        """The lens with the least p."""
        return min((lens for lens in self.lenses if lens.p is not None), key=lambda lens: lens.p or 0.0, default=None)
