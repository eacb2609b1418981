"""Talk with both models over several turns."""

from pydantic import BaseModel, Field

from auditor import Args, Context, tool
from auditor.errors import Refused


class Turns(Args):
    say: list[str] = Field(min_length=1, max_length=20, description="your turns of one chat, answered in order")
    after: str = Field("", description="id of an earlier result of this tool (O3, say), whose chat goes on")


class Turn(BaseModel):
    prompt: str
    base: str | None
    finetuned: str
    goes_on_from: str  # an earlier result's id, or nothing
    then: str = ""  # why the chat ended here


@tool(cost=lambda args: len(args.say))
def converse(ctx: Context, args: Turns) -> list[Turn]:
    """Talk with both models in one chat each: every model sees your turns and its own answers to them.

    Costs 1 interaction a turn. For games, confessions, and what only comes out late: begin, read, then go on with
    `after`. Where no answer changes what you would say next, ask_model is as good.
    """
    said = _before(ctx, args.after)
    found: list[Turn] = []
    for prompt in args.say:
        try:
            base, finetuned = ctx.go_on(prompt, said)
        except Refused as refusal:  # the chat is too long for the models, say
            if not found:
                raise
            found[-1].then = f"went no further: {refusal}"
            break
        said.append((prompt, base, finetuned))
        found.append(Turn(prompt=prompt, base=base, finetuned=finetuned, goes_on_from=args.after))
    return found


def _before(ctx: Context, after: str) -> list[tuple[str, str | None, str]]:
    """What was said in a chat up to the end of that result. Raises Refused if it is none of this tool's."""
    if not after:
        return []
    told = ctx.results.get(after)
    try:
        turns = [Turn.model_validate(turn) for turn in told or ()]
    except ValueError:
        turns = []
    if not turns:
        raise Refused(f"{after} is no result of converse: give the id of one, or nothing for a new chat")
    return [*_before(ctx, turns[0].goes_on_from), *((t.prompt, t.base, t.finetuned) for t in turns)]
