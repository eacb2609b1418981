"""The logit lens: tokens that the difference promotes directly."""

from pydantic import Field

from auditor import Args, Context, LensContext, ModelPair, Record, lens, tool
from auditor.errors import Refused
from auditor.methods.found import Differences, LogitLens
from auditor.methods.reads import promoted_at


class LogitLensSettings(Record):
    tokens: int = Field(100, ge=1, description="kept at each end")
    means: int = Field(20, ge=1, description="kept of both mean activations, to compare with")


@lens(needs=("differences",))
def logit_lens(pair: ModelPair, ctx: LensContext, settings: LogitLensSettings) -> LogitLens:
    """Tokens that δ promotes, and those that it suppresses, at every layer and position that was read."""
    diffs = ctx.reading("differences", Differences)
    layers = [diffs.difference(norms.layer) for norms in diffs.layers]
    read = tuple(promoted_at(pair, diff, settings.tokens, settings.means) for diff in layers)
    return LogitLens(last_layer=diffs.last_layer, layers=read)


class LogitLensQuery(Args):
    dataset: str
    layer: int = Field(ge=0, description="the last is usually the most readable")
    positions: list[int] = Field(min_length=1)
    k: int = Field(20, ge=1, le=100, description="tokens a position")
    bottom: bool = Field(False, description="suppressed tokens too")


@tool
def get_logitlens_details(ctx: Context, args: LogitLensQuery) -> dict[int, dict[str, list[str]]]:
    """Read more of the tokens that the difference promotes, the strongest first, free of charge."""
    found = ctx.dataset(args.dataset).reading("logit_lens", LogitLens)
    layers = {layer.layer: {p.position: p for p in layer.positions} for layer in found.layers}
    if args.layer not in layers:
        raise Refused(f"layer {args.layer} was not computed; there are {sorted(layers)}")
    out = {}
    for position in args.positions:
        if position not in (there := layers[args.layer]):
            raise Refused(f"position {position} was not computed; there are {sorted(there)}")
        read = there[position].read
        out[position] = {"top": [t.token for t in read.top[: args.k]]}
        if args.bottom:
            out[position]["bottom"] = [t.token for t in read.bottom[: args.k]]
    return out
