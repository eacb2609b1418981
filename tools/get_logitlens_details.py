"""Cached logit lens tokens."""

from pydantic import Field

from auditor import Args, Context, tool


class LogitLensQuery(Args):
    dataset: str
    layer: int = Field(ge=0, description="the last is usually the most readable")
    positions: list[int] = Field(min_length=1)
    k: int = Field(20, ge=1, le=100, description="tokens a position")
    bottom: bool = Field(False, description="suppressed tokens too")


@tool
def get_logitlens_details(ctx: Context, args: LogitLensQuery) -> dict[int, dict[str, list[str]]]:
    """Read more of the tokens that the difference promotes, the strongest first, free of charge."""
    dataset = ctx.dataset(args.dataset)
    out = {}
    for position in args.positions:
        dataset.direction(args.layer, position)
        reading = dataset.evidence.layer(args.layer).positions[position].logit_lens
        out[position] = {"top": [t.token for t in reading.top[: args.k]]}
        if args.bottom:
            out[position]["bottom"] = [t.token for t in reading.bottom[: args.k]]
    return out
