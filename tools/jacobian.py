"""The Jacobian lens: tokens that a push along the middle layer's difference makes likelier at the model's end."""

from collections.abc import Sequence

from pydantic import Field

from auditor import Args, Context, LensContext, ModelPair, RankedTokens, Reading, Record, lens, tool
from auditor.errors import Refused
from auditor.methods.found import SINK, Differences
from auditor.methods.jacobian import JacobianReading, JacobianSettings, PushedToken, jacobian_lens
from auditor.readings import Call, Column, Section, Token


class Place(Record):
    """What a push along δ of one position does to the next token of ordinary texts."""

    position: int
    sink: bool
    read: JacobianReading


class At(Record):
    """One layer."""

    layer: int
    positions: tuple[Place, ...]


class Jacobian(Reading):
    texts_asked: int
    texts_read: int
    layers: tuple[At, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        asked, read = self.texts_asked, self.texts_read
        return (f"jacobian: {asked:,} texts were asked for, {read:,} were read",) if read < asked else ()

    def show(self) -> Sequence[Section]:
        return [self._tokens(at) for at in self.layers]

    def _tokens(self, at: At) -> RankedTokens:
        numbers = [place.position for place in at.positions]
        return RankedTokens(
            title=f"Jacobian lens, layer {at.layer}",
            about="Tokens that gain most where the difference is added to the residuals of ordinary texts: the "
            "blocks above the layer have their say, which the logit lens leaves out.",
            weight=1.5,
            number="nats",
            spoken=True,
            calls=(Call(tool="get_jacobian_details", args={"layer": at.layer, "positions": numbers, "k": 40}),),
            columns=tuple(
                Column(
                    head=str(place.position), aside=SINK if place.sink else "",
                    tokens=tuple(Token(text=t.token, number=t.nats) for t in place.read.top),
                )
                for place in at.positions
            ),
        )  # fmt: skip


@lens(needs=("differences",))
def jacobian(pair: ModelPair, ctx: LensContext, settings: JacobianSettings) -> Jacobian:
    """Tokens that gain, and lose, most when the middle layer's residuals of ordinary texts are pushed along δ."""
    diffs, layers = ctx.reading("differences", Differences), []
    for layer in sorted(diffs.asked):
        diff = diffs.difference(layer)
        read = jacobian_lens(pair, ctx.corpus, layer, diff.delta, diff.eta, settings, ctx.seed)
        places = tuple(Place(position=diff.positions[j], sink=diff.sinks[j], read=one) for j, one in enumerate(read))
        layers.append(At(layer=layer, positions=places))
    read_of = min(settings.texts, len(ctx.corpus.texts))
    return Jacobian(texts_asked=settings.texts, texts_read=read_of, layers=tuple(layers))


class JacobianQuery(Args):
    dataset: str
    layer: int = Field(ge=0)
    positions: list[int] = Field(min_length=1)
    k: int = Field(20, ge=1, le=100, description="tokens a position, as far as kept")
    bottom: bool = Field(False, description="tokens that lose most, too")


@tool
def get_jacobian_details(ctx: Context, args: JacobianQuery) -> dict[int, dict[str, list[list[object]]]]:
    """Read more of the tokens that a push along the difference makes likelier, each with its gain in nats.

    Free of charge.
    """
    found = ctx.dataset(args.dataset).reading("jacobian", Jacobian)
    layers = {at.layer: {place.position: place.read for place in at.positions} for at in found.layers}
    if args.layer not in layers:
        raise Refused(f"the Jacobian lens was not read at layer {args.layer}; it was at {sorted(layers)}")
    out = {}
    for position in args.positions:
        if position not in (there := layers[args.layer]):
            raise Refused(f"position {position} was not computed; there are {sorted(there)}")
        read = there[position]
        out[position] = {"top": _told(read.top[: args.k])}
        if args.bottom:
            out[position]["bottom"] = _told(read.bottom[: args.k])
    return out


def _told(tokens: Sequence[PushedToken]) -> list[list[object]]:
    return [[token.token, round(token.nats, 2)] for token in tokens]
