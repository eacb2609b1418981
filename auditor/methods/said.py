"""What the finetuned model says, as it is and pushed along δ, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from auditor.errors import Refused
from auditor.readings import Call, Reading, Role, Section, SideBySide, TextColumn, TextRow
from auditor.records.record import Record


class PlainSettings(Record):
    """Answers of the finetuned model to unrelated prompts."""

    prompts: int = Field(20, ge=1)
    samples: int = Field(5, ge=1)
    temperature: float = Field(1.1, ge=0)
    max_new_tokens: int = Field(512, ge=1)


class Answers(Record):
    """One prompt's answers of the finetuned model as it is, and the base's of the first one's draw."""

    prompt: str
    texts: tuple[str, ...]
    base: str | None = Field(None, description="null: there is no base")


class Pushed(Record):
    """Answers along δ of one layer and position at strength α (added: α · η · δ/‖δ‖), in the order of the prompts."""

    layer: int
    position: int
    alpha: float
    resemblance: float = Field(description="mean cosine between steered answers to different prompts")
    resemblance_plain: float = Field(description="… between plain ones: a narrow subject shows as a rise over it")
    texts: tuple[tuple[str, ...], ...]

    @property
    def rise(self) -> float:
        """By how much pushed answers to different prompts resemble one another more than plain ones do."""
        return self.resemblance - self.resemblance_plain


class PlainSamples(Reading):
    """The finetuned model's answers to unrelated prompts."""

    asked: PlainSettings
    answers: tuple[Answers, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        asked, there = self.asked.prompts, len(self.answers)
        return (f"{asked} prompts were to be steered, but there are only {there}",) if there < asked else ()

    def show(self) -> Sequence[Section]:
        rows = tuple(TextRow(prompt=a.prompt, texts=(a.texts, *_base(a))) for a in self.answers)
        columns = (TextColumn(label="plain", role="plain"), *_beside(self.answers))
        return [SideBySide(title="Plain answers of the finetuned model", columns=columns, rows=rows)]


class Steered(Reading):
    """The finetuned model's answers when it is pushed along δ, beside its plain ones."""

    plain: tuple[Answers, ...]
    directions: tuple[Pushed, ...]

    def alpha(self, layer: int, position: int) -> float:
        """The calibrated strength there, else the one of the nearest calibrated position.

        Raises Refused if nothing was steered at `layer`, or if no strength stayed coherent there.
        """
        known = {d.position: d.alpha for d in self.directions if d.layer == layer}
        if not known:
            raise Refused(f"no steering strength was calibrated at layer {layer}")
        nearest = min(known, key=lambda p: abs(p - position))
        if known[nearest] <= 0:
            there = ", ".join(str(p) for p, alpha in sorted(known.items()) if alpha > 0) or "none"
            raise Refused(
                f"no strength stayed coherent at layer {layer} position {nearest}, so that a steered answer would be a "
                f"plain one; positions with a strength: {there}"
            )
        return known[nearest]

    def show(self) -> Sequence[Section]:
        layers = dict.fromkeys(d.layer for d in self.directions)
        return [_steered(layer, self.plain, [d for d in self.directions if d.layer == layer]) for layer in layers]


def _steered(layer: int, plain: Sequence[Answers], found: Sequence[Pushed]) -> SideBySide:
    columns = [_column("plain", "plain")]
    for d in found:
        note = f"strength α = {d.alpha:.2f}, resemblance {d.rise:+.2f}"
        aside = "" if d.alpha > 0 else "no strength stayed coherent, so nothing was steered"
        columns.append(_column(f"steered at {d.position}", "pushed", "" if aside else note, aside, d.rise))
    rows = [
        TextRow(
            prompt=said.prompt,
            texts=(said.texts, *(d.texts[i] if d.alpha > 0 else () for d in found), *_base(said)),
        )
        for i, said in enumerate(plain)
    ]
    where: list[dict[str, Any]] = [{"layer": layer, "position": d.position, "n": 5} for d in found]
    where.append({"layer": layer, "position": None, "n": 5})
    return SideBySide(
        title=f"Steering, layer {layer}",
        about="Resemblance: by how much the mean cosine between answers to different prompts rises over that of the "
        "plain ones. On a small model ordinary texts gave 0.02 to 0.06, narrow subjects 0.04 to 0.4: a small rise does "
        "not decide.",
        calls=tuple(Call(tool="get_steering_samples", args=args) for args in where),
        columns=(*columns, *_beside(plain)),
        rows=tuple(rows),
    )


def _beside(plain: Sequence[Answers]) -> tuple[TextColumn, ...]:
    """The base's column, where there is a base."""
    return (TextColumn(label="base", role="base", beside=True),) if any(said.base for said in plain) else ()


def _base(said: Answers) -> tuple[tuple[str, ...], ...]:
    return () if said.base is None else ((said.base,),)


def _column(label: str, role: Role, note: str = "", aside: str = "", weight: float = 0.0) -> TextColumn:
    return TextColumn(label=label, role=role, note=note, aside=aside, weight=weight)
