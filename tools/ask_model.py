"""Ask both models."""

from typing import Literal

from pydantic import BaseModel, Field

from auditor import Args, Context, tool


class Questions(Args):
    prompts: list[str] = Field(min_length=1, max_length=50, description="each a chat of its own")
    n: int = Field(1, ge=1, le=20, description="answers to each prompt, drawn anew")
    models: Literal["both", "finetuned"] = Field(
        "both", description="who answers; the price is the same, one is less to read"
    )


class Answers(BaseModel):
    prompt: str
    base: str | None
    finetuned: str


class Alone(BaseModel):
    prompt: str
    finetuned: str


@tool(cost=lambda args: len(args.prompts) * args.n)
def ask_model(ctx: Context, args: Questions) -> list[Answers | Alone]:
    """Put each prompt to the base and to the finetuned model, each time in a fresh chat, and see their answers.

    Costs len(prompts) × n interactions. "…" at an end: a token limit cut it off, after some sentences. A small
    model's single answer may be noise: n shows what comes back. Put one open question about one subject in a prompt.
    """
    both = args.models == "both"
    asked = [prompt for prompt in args.prompts for _ in range(args.n)]
    said = zip(asked, ctx.ask_both(args.prompts, n=args.n, base=both), strict=True)
    return [Answers(prompt=p, base=b, finetuned=f) if both else Alone(prompt=p, finetuned=f) for p, (b, f) in said]
