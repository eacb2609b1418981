"""Sample the finetuned model pushed along the activation difference."""

from pydantic import Field

from auditor import Args, Context, tool
from auditor.models.generate import Request, Side, derive_seed


class Steer(Args):
    dataset: str
    layer: int = Field(ge=0)
    position: int = Field(ge=0)
    prompts: list[str] = Field(min_length=1, max_length=50)
    n: int = Field(1, ge=1, le=20, description="samples a prompt")


@tool(cost=lambda args: len(args.prompts) * args.n)
def generate_steered(ctx: Context, args: Steer) -> dict[str, list[str]]:
    """Let the finetuned model answer your own prompts while it is pushed along the difference.

    Costs 1 interaction a sample. The strength is the one calibrated for the overview, or for the nearest position.
    """
    dataset = ctx.dataset(args.dataset)
    direction = dataset.direction(args.layer, args.position)
    steering = direction.steering(dataset.alpha(args.layer, args.position))
    texts = ctx.pair.generate(
        [
            Request(
                prompt,
                Side.FINETUNED,
                derive_seed(ctx.seed, i, sample, prompt),
                ctx.ask.max_new_tokens,
                ctx.ask.temperature,
                ctx.ask.top_p,
                steering=steering,
            )
            for i, prompt in enumerate(args.prompts)
            for sample in range(args.n)
        ]
    )
    return {p: texts[i * args.n : (i + 1) * args.n] for i, p in enumerate(args.prompts)}
