"""The logit lens: tokens that the difference promotes directly."""

from collections.abc import Sequence

from pydantic import Field

from auditor import Args, Context, LensContext, ModelPair, Record, lens, tool
from auditor.errors import Refused
from auditor.methods.found import Differences, LogitLens, by_text
from auditor.methods.layers import Layer, numbered
from auditor.methods.reads import promoted_at
from auditor.records.evidence import ScoredToken


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
    layer: Layer
    positions: list[int] = Field(min_length=1)
    k: int = Field(20, ge=1, le=100, description="tokens a position")
    bottom: bool = Field(False, description="suppressed tokens too")


@tool
def get_logitlens_details(ctx: Context, args: LogitLensQuery) -> dict[int, dict[str, dict[str, float]]]:
    """Read more of the tokens that the difference promotes, the likeliest first, with their probabilities, free of
    charge. The last layer is usually the most readable. Tokens that look alike (�, a piece of a character)
    are added up.
    """
    found = ctx.dataset(args.dataset).reading("logit_lens", LogitLens)
    layers = {layer.layer: {p.position: p for p in layer.positions} for layer in found.layers}
    layer = numbered(args.layer, found.last_layer + 1)
    if layer not in layers:
        raise Refused(f"layer {layer} was not computed; there are {sorted(layers)}")
    out = {}
    for position in args.positions:
        if position not in (there := layers[layer]):
            raise Refused(f"position {position} was not computed; there are {sorted(there)}")
        read = there[position].read
        out[position] = {"top": _listed(read.top[: args.k])}
        if args.bottom:
            out[position]["bottom"] = _listed(read.bottom[: args.k])
    return out


def _listed(tokens: Sequence[ScoredToken]) -> dict[str, float]:
    return {text: float(f"{prob:.2g}") for text, prob in by_text(tokens).items()}
