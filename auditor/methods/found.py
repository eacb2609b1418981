"""The readings of the lenses that other lenses build on, and how each is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field

from auditor.errors import Refused
from auditor.methods.diff import Difference
from auditor.methods.steering import Direction
from auditor.readings import (
    Call,
    Column,
    RankedTokens,
    Reading,
    Section,
    SmallTable,
    Token,
)
from auditor.records.evidence import LensReading, PatchscopeReading, ScoredToken
from auditor.records.record import Record

TENSORS = ("base", "finetuned", "norm_base", "norm_finetuned", "counts", "groups", "sizes", "spoken")
SINK = "attention sink: its δ says little"


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
    """Mean activation differences on the first tokens of unrelated texts.

    `arrays` hold every `Difference`, its fields under `LAYER.FIELD`: what other lenses need, without another pass.
    """

    texts_asked: int
    texts_read: int
    last_layer: int
    asked: tuple[int, ...] = Field(description="the layers that were asked for; the last one is read beside them")
    layers: tuple[Norms, ...]

    @classmethod
    def of(cls, diffs: Mapping[int, Difference], asked: Sequence[int], texts: int) -> Differences:
        """`texts`: how many were asked for."""
        last = max(diffs)
        arrays = {
            f"{layer}.{name}": value.contiguous()
            for layer, diff in diffs.items()
            for name in TENSORS
            if (value := getattr(diff, name)) is not None
        }
        return cls(
            arrays=arrays, texts_asked=texts, texts_read=int(diffs[last].counts.max()), last_layer=last,
            asked=tuple(asked), layers=tuple(norms_of(diffs[layer]) for layer in sorted(diffs)),
        )  # fmt: skip

    def difference(self, layer: int) -> Difference:
        """Raises Refused if `layer` was not read."""
        known = {norms.layer: norms for norms in self.layers}
        if layer not in known:
            raise Refused(f"layer {layer} was not computed; there are {sorted(known)}")
        held: dict[str, Any] = {name: self.arrays.get(f"{layer}.{name}") for name in TENSORS}
        numbers = tuple(place.position for place in known[layer].positions)
        return Difference(layer=layer, eta=known[layer].eta, numbers=numbers, **held)

    def direction(self, layer: int, position: int) -> Direction:
        """δ at `layer` and `position`. Raises Refused if it was not read."""
        diff = self.difference(layer)
        if position not in diff.positions:
            there = ", ".join(map(str, diff.positions))
            raise Refused(f"position {position} was not computed; there are {there}")
        return Direction(layer, position, diff.delta[diff.positions.index(position)], diff.eta)

    @property
    def readable(self) -> list[int]:
        """Positions that are no sink at any layer; all if there is none such."""
        sinks = {p.position for layer in self.layers for p in layer.positions if p.sink}
        places = [p.position for p in self.layers[-1].positions]
        return [place for place in places if place not in sinks] or places

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


def norms_of(diff: Difference) -> Norms:
    places = tuple(
        Place(
            position=position, n_texts=int(diff.counts[j]), norm_delta=float(diff.delta[j].norm()),
            norm_base=float(diff.norm_base[j]), norm_finetuned=float(diff.norm_finetuned[j]), sink=diff.sinks[j],
        )
        for j, position in enumerate(diff.positions)
    )  # fmt: skip
    return Norms(layer=diff.layer, eta=diff.eta, positions=places)


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
            weight=2.0 if last else 1.0,
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
            about="A judge chose the scale λ, and of its tokens those that belong together (`selected`; underlined or "
            "bold on a page). Common words of one kind hang together, too.",
            weight=3.0,
            calls=(Call(tool="get_patchscope_details", args={"layer": layer.layer, "positions": places, "k": 20}),),
            columns=tuple(
                Column(
                    head=str(p.position),
                    tokens=_tokens(p.read.tokens, p.read.choice.selected),
                    note=f"λ = {p.read.choice.scale:g}",
                    aside=SINK if p.sink else "",
                    weight=p.shared,
                    usual=tuple(token.token for token in p.finetuned),
                )
                for p in layer.positions
            ),
        )


def by_text(found: Sequence[ScoredToken]) -> dict[str, float]:
    """Each text's probability, in the order of `found`; tokens that look alike (pieces of characters, "�") add up."""
    probs: dict[str, float] = {}
    for token in found:
        probs[token.token] = probs.get(token.token, 0.0) + token.prob
    return probs


def _tokens(found: Sequence[ScoredToken], chosen: Sequence[str] = ()) -> tuple[Token, ...]:
    return tuple(Token(text=t.token, number=t.prob, chosen=t.token in chosen) for t in found)


def named(layer: int, last: int) -> str:
    """A layer's number, and whether it is the last."""
    return f"layer {layer}{' (last)' if layer == last else ''}"
