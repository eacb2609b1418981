"""Cached steered and unsteered answers."""

from pydantic import Field

from auditor import Args, Context, tool
from auditor.errors import Refused


class SteeringQuery(Args):
    dataset: str
    layer: int = Field(ge=0)
    position: int | None = Field(None, ge=0, description="null for plain answers")
    prompts_subset: list[int] | None = Field(None, description="their numbers; null for all")
    n: int = Field(1, ge=1, le=20, description="answers a prompt, as far as kept")


@tool
def get_steering_samples(ctx: Context, args: SteeringQuery) -> list[dict[str, object]]:
    """Read more of the finetuned model's steered answers, free of charge.

    The overview shows the first of each prompt; more seldom change the picture, so name a few prompts.
    """
    evidence = ctx.dataset(args.dataset).evidence
    known = {(s.layer, s.position): s for s in evidence.steering}
    if args.position is not None and (args.layer, args.position) not in known:
        listed = ", ".join(f"layer {layer} position {position}" for layer, position in known)
        raise Refused(f"nothing was steered at layer {args.layer} position {args.position}; there is: {listed}")
    if args.position is not None and known[args.layer, args.position].alpha <= 0:
        raise Refused(
            f"no strength stayed coherent at layer {args.layer} position {args.position}: nothing was steered there; "
            "position null has the plain answers"
        )
    samples = evidence.unsteered if args.position is None else known[args.layer, args.position].samples
    wanted = range(len(samples)) if args.prompts_subset is None else args.prompts_subset
    if bad := [i for i in wanted if not 0 <= i < len(samples)]:
        raise Refused(f"no prompts {bad}; they are numbered 0 to {len(samples) - 1}")
    if args.position is None:
        return [{"prompt": samples[i].prompt, "plain": list(samples[i].unsteered[: args.n])} for i in wanted]
    return [{"prompt": samples[i].prompt, "steered": list(samples[i].steered[: args.n])} for i in wanted]
