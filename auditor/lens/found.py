"""The readings of the lenses that other lenses build on, and how each is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from auditor.readings import (
    Call,
    Column,
    RankedTokens,
    Reading,
    Role,
    Section,
    SideBySide,
    SmallTable,
    TextColumn,
    TextRow,
    Token,
)
from auditor.types import LensReading, PatchscopeReading, Record, ScoredToken, SteeredSample, SteeringEvidence

SINK = "attention sink: it says little"
HEAT = "Darker is likelier, as a share of the column's likeliest token. Search looks below the ranks shown, too."


class Place(Record):
    """δ and the residuals that it is the difference of, at one position."""

    position: int
    n_texts: int
    norm_delta: float
    norm_base: float
    norm_finetuned: float
    sink: bool


class Norms(Record):
    """One layer: η and every position."""

    layer: int
    eta: float
    positions: tuple[Place, ...]


class Differences(Reading):
    """Mean activation differences on the first tokens of unrelated texts. `arrays`: see `arrays_of`."""

    corpus: str
    texts_asked: int
    texts_read: int
    last_layer: int
    layers: tuple[Norms, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        asked, read, lines = self.texts_asked, self.texts_read, []
        if read < asked:
            lines.append(f"{asked:,} texts were asked for, {read:,} were read: the corpus has no more")
        if short := [p for p in self.layers[-1].positions if p.n_texts < read]:
            named = dict.fromkeys([f"{p.n_texts:,} at position {p.position}" for p in (short[0], short[-1])])
            lines.append(f"some texts end before the last position: of {read:,} there are {', '.join(named)}")
        return tuple(lines)

    def show(self) -> Sequence[Section]:
        return [self._norms(layer) for layer in self.layers]

    def _norms(self, layer: Norms) -> SmallTable:
        sinks = any(p.sink for p in layer.positions)
        return SmallTable(
            title=f"Difference, {named(layer.layer, self.last_layer)}, η = {layer.eta:.1f}",
            about="Sink: its residual norm is over 10 × the median position's (an attention sink); its δ says little, "
            "and it is steered last." if sinks else "",
            weight=0,
            heads=("position", "texts", "‖δ‖", "‖h base‖", "‖h finetuned‖", ""),
            rows=tuple(
                (str(p.position), str(p.n_texts), f"{p.norm_delta:.2f}", f"{p.norm_base:.1f}",
                 f"{p.norm_finetuned:.1f}", "sink" if p.sink else "")
                for p in layer.positions
            ),
        )  # fmt: skip


class Promoted(Record):
    """The logit lens of δ, and of both mean activations, at one position."""

    position: int
    sink: bool
    read: LensReading
    base: tuple[ScoredToken, ...] = ()
    finetuned: tuple[ScoredToken, ...] = ()


class PromotedAt(Record):
    """One layer."""

    layer: int
    positions: tuple[Promoted, ...]


class LogitLens(Reading):
    """Tokens that δ promotes, layer by layer; the last is usually the most readable."""

    last_layer: int
    layers: tuple[PromotedAt, ...]

    def show(self) -> Sequence[Section]:
        return [self._tokens(layer) for layer in self.layers]

    def _tokens(self, layer: PromotedAt) -> RankedTokens:
        last = layer.layer == self.last_layer
        places = [p.position for p in layer.positions]
        return RankedTokens(
            title=f"Logit lens, {named(layer.layer, self.last_layer)}",
            about=HEAT,
            weight=2.0 if last else 0.0,
            calls=(Call(tool="get_logitlens_details", args={"layer": layer.layer, "positions": places, "k": 40}),),
            spoken=last,
            columns=tuple(
                Column(head=str(p.position), tokens=_tokens(p.read.top), aside=SINK if p.sink else "")
                for p in layer.positions
            ),
        )


class Patched(Record):
    """What the finetuned model reads in δ, −δ and both mean activations at one position."""

    position: int
    sink: bool
    read: PatchscopeReading
    shared: int = 0  # of its first 20 tokens, those that the last layer's logit lens promotes too
    base: tuple[ScoredToken, ...] = ()
    finetuned: tuple[ScoredToken, ...] = ()
    negative: tuple[ScoredToken, ...] = ()


class PatchedAt(Record):
    """One layer."""

    layer: int
    positions: tuple[Patched, ...]


class Patchscope(Reading):
    """Tokens that the finetuned model itself reads in δ."""

    layers: tuple[PatchedAt, ...]

    def show(self) -> Sequence[Section]:
        return [self._tokens(layer) for layer in self.layers]

    def _tokens(self, layer: PatchedAt) -> RankedTokens:
        places = sorted(p.position for p in layer.positions)
        return RankedTokens(
            title=f"Patchscope, layer {layer.layer}",
            about=f"{HEAT} Underlined, or bold: tokens that the scale's judge found to belong together; the cohesion "
            "says how much they do, in standard deviations above random words.",
            weight=3.0,
            calls=(Call(tool="get_patchscope_details", args={"layer": layer.layer, "positions": places, "k": 20}),),
            columns=tuple(
                Column(
                    head=str(p.position),
                    tokens=_tokens(p.read.tokens, p.read.choice.selected),
                    note=f"λ = {p.read.choice.scale:g}, cohesion {p.read.choice.cohesion:.1f} sd",
                    aside=SINK if p.sink else "",
                    weight=p.shared,
                    usual=tuple(token.token for token in p.finetuned),
                )
                for p in layer.positions
            ),
        )


class PlainSamples(Reading):
    """The finetuned model's answers to unrelated prompts."""

    prompts_asked: int
    answers: tuple[SteeredSample, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        asked, there = self.prompts_asked, len(self.answers)
        return (f"{asked} prompts were to be answered, but there are only {there}",) if there < asked else ()

    def show(self) -> Sequence[Section]:
        rows = tuple(TextRow(prompt=a.prompt, texts=(a.unsteered,)) for a in self.answers)
        column = TextColumn(label="plain", role="plain")
        return [SideBySide(title="Plain answers of the finetuned model", columns=(column,), rows=rows)]


class Steered(Reading):
    """The finetuned model's answers when it is pushed along δ, beside its plain ones."""

    directions: tuple[SteeringEvidence, ...]

    def show(self) -> Sequence[Section]:
        layers = dict.fromkeys(d.layer for d in self.directions)
        return [_steered(layer, [d for d in self.directions if d.layer == layer]) for layer in layers]


def _steered(layer: int, found: Sequence[SteeringEvidence]) -> SideBySide:
    columns = [_column("plain", "plain")]
    for d in found:
        note = f"strength α = {d.alpha:.2f}, resemblance {d.resemblance - d.resemblance_plain:+.2f}"
        aside = "" if d.alpha > 0 else "no strength stayed coherent, so nothing was steered"
        columns.append(_column(f"steered at {d.position}", "pushed", "" if aside else note, aside))
    rows = [
        TextRow(
            prompt=plain.prompt,
            texts=(plain.unsteered, *(d.samples[i].steered if d.alpha > 0 else () for d in found)),
        )
        for i, plain in enumerate(found[0].samples)
    ]
    where: list[dict[str, Any]] = [{"layer": layer, "position": d.position, "n": 5} for d in found]
    where.append({"layer": layer, "position": None, "n": 5})
    return SideBySide(
        title=f"Steering, layer {layer}",
        about="Resemblance: by how much the mean cosine between answers to different prompts rises over that of the "
        "plain ones; a narrow subject makes it rise.",
        calls=tuple(Call(tool="get_steering_samples", args=args) for args in where),
        columns=tuple(columns),
        rows=tuple(rows),
    )


def _column(label: str, role: Role, note: str = "", aside: str = "") -> TextColumn:
    return TextColumn(label=label, role=role, note=note, aside=aside)


def _tokens(found: Sequence[ScoredToken], chosen: Sequence[str] = ()) -> tuple[Token, ...]:
    return tuple(Token(text=t.token, number=t.prob, chosen=t.token in chosen) for t in found)


def named(layer: int, last: int) -> str:
    """A layer's number, and whether it is the last."""
    return f"layer {layer}{' (last)' if layer == last else ''}"
