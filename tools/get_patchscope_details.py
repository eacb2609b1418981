"""Cached patchscope tokens."""

from pydantic import Field

from auditor import Args, Context, tool
from auditor.errors import Refused


class PatchscopeQuery(Args):
    dataset: str
    layer: int = Field(ge=0)
    positions: list[int] = Field(min_length=1)
    k: int = Field(20, ge=1, le=100, description="tokens a position, as far as kept")


@tool
def get_patchscope_details(ctx: Context, args: PatchscopeQuery) -> dict[int, dict[str, object]]:
    """Read the patchscope's probabilities, and its `baseline`: what it reads in the plain mean finetuned activation.

    Free of charge. The overview has the tokens themselves, but for attention sinks.
    """
    dataset = ctx.dataset(args.dataset)
    out: dict[int, dict[str, object]] = {}
    for position in args.positions:
        dataset.direction(args.layer, position)
        found = dataset.evidence.layer(args.layer).positions[position]
        if found.patchscope is None:
            with_it = [lay.layer for lay in dataset.evidence.layers if lay.positions[0].patchscope]
            raise Refused(f"the patchscope was not run at layer {args.layer}; it was at {with_it}")
        out[position] = {
            "tokens": {t.token: round(t.prob, 4) for t in found.patchscope.tokens[: args.k]},
            "selected": list(found.patchscope.choice.selected),
            "scale": found.patchscope.choice.scale,
            "cohesion": found.patchscope.choice.cohesion,
            "sink": found.sink,
            "baseline": [t.token for t in found.patchscope_finetuned[: args.k]],
        }
    return out
