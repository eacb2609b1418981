"""The patchscope: tokens that the finetuned model itself reads in the difference."""

from typing import Annotated

from pydantic import Field

from auditor import Args, Context, Judged, LensContext, ModelPair, lens, tool
from auditor.errors import Refused
from auditor.methods.found import Differences, LogitLens, Patchscope, by_text
from auditor.methods.layers import Layer, numbered
from auditor.methods.reads import patched_at
from auditor.records.evidence import PatchscopeSettings


class JudgedPatchscope(PatchscopeSettings):
    scale_grader: Annotated[str, Judged("patchscope_scale")] = "patchscope_scale_offline"


@lens(needs=("differences", "logit_lens"))
def patchscope(pair: ModelPair, ctx: LensContext, settings: JudgedPatchscope) -> Patchscope:
    """What the finetuned model reads in δ when it stands in a token's place, at the scale that a judge finds best."""
    diffs, promoted = ctx.reading("differences", Differences), ctx.reading("logit_lens", LogitLens)
    scales, last = ctx.grader_of_each(settings.scale_grader), promoted.layers[-1]
    layers = [diffs.difference(layer) for layer in sorted(diffs.asked)]
    return Patchscope(layers=tuple(patched_at(pair, diff, settings, scales, last) for diff in layers))


class PatchscopeQuery(Args):
    dataset: str
    layer: Layer
    positions: list[int] = Field(min_length=1)
    k: int = Field(20, ge=1, le=100, description="tokens a position, as far as kept")


@tool
def get_patchscope_details(ctx: Context, args: PatchscopeQuery) -> dict[int, dict[str, object]]:
    """Read the patchscope's probabilities, and its `baseline`: what it reads in the plain mean finetuned activation.

    Free of charge. Cohesion: how much its tokens hang together, in standard deviations above random words; noise of
    one kind does so too.
    """
    found = ctx.dataset(args.dataset).reading("patchscope", Patchscope)
    layers = {layer.layer: {p.position: p for p in layer.positions} for layer in found.layers}
    layer = numbered(args.layer, ctx.pair.n_layers)
    if layer not in layers:
        raise Refused(f"the patchscope was not run at layer {layer}; it was at {sorted(layers)}")
    out: dict[int, dict[str, object]] = {}
    for position in args.positions:
        if position not in (there := layers[layer]):
            raise Refused(f"position {position} was not computed; there are {sorted(there)}")
        at = there[position]
        out[position] = {
            "tokens": {text: round(prob, 4) for text, prob in by_text(at.read.tokens[: args.k]).items()},
            "selected": list(at.read.choice.selected),
            "scale": at.read.choice.scale,
            "cohesion": at.read.choice.cohesion,
            "sink": at.sink,
            "baseline": [t.token for t in at.finetuned[: args.k]],
        }
    return out
