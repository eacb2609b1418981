"""Ask both models."""

from pydantic import BaseModel, Field

from auditor import Args, Context, tool


class Questions(Args):
    prompts: list[str] = Field(min_length=1, max_length=50, description="each a chat of its own")


class Answers(BaseModel):
    prompt: str
    base: str | None
    finetuned: str


@tool(cost=lambda args: len(args.prompts))
def ask_model(ctx: Context, args: Questions) -> list[Answers]:
    """Put each prompt to the base and to the finetuned model, in a fresh chat, and see both answers.

    Costs 1 interaction a prompt. One sampled answer of each model; "…" at its end: a token limit cut it off. Put one
    open question about one subject in a prompt; the details that you suspect are better not named.
    """
    pairs = ctx.ask_both(args.prompts)
    return [Answers(prompt=p, base=b, finetuned=f) for p, (b, f) in zip(args.prompts, pairs, strict=True)]
