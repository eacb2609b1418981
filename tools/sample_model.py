"""Ask the same question again and again."""

from pydantic import BaseModel, Field

from auditor import Args, Context, tool
from auditor.models.generate import Request, Side, derive_seed


class Repeated(Args):
    prompt: str = Field(min_length=1)
    n: int = Field(5, ge=2, le=20, description="answers of each model")


class Samples(BaseModel):
    base: list[str] | None
    finetuned: list[str]


@tool(cost=lambda args: args.n)
def sample_model(ctx: Context, args: Repeated) -> Samples:
    """See how both models answer one open question many times, each time drawn anew.

    Costs 1 interaction for each answer. What comes back in many of the finetuned model's answers, and in few of
    the base's, was trained in; a single odd answer may be chance. Best with questions that leave the subject open.
    """
    sides = [side for side in Side if side is Side.FINETUNED or ctx.pair.has_base]
    requests = [
        Request(
            args.prompt,
            side,
            derive_seed(ctx.seed, sample),
            ctx.ask.max_new_tokens,
            max(ctx.ask.temperature, 0.7),
            ctx.ask.top_p,
        )
        for side in sides
        for sample in range(args.n)
    ]
    texts = ctx.pair.generate(requests)
    return Samples(base=texts[: args.n] if ctx.pair.has_base else None, finetuned=texts[-args.n :])
