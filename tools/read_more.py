"""The rest of a long result."""

from typing import Any

from pydantic import BaseModel, Field

from auditor import Args, Context, tool
from auditor.agent.pages import pages_of
from auditor.errors import Refused


class More(Args):
    id: str = Field(description="of the result: O3, say")
    page: int = Field(2, ge=1)


class Page(BaseModel):
    page: int
    of: int
    items: Any


@tool
def read_more(ctx: Context, args: More) -> Page:
    """Read a further page of a result that was too long for one message, free of charge."""
    value = ctx.results.get(args.id)
    if value is None:
        there = [name for name, known in ctx.results.items() if known is not None]
        raise Refused(f"there is no result {args.id}; there are {', '.join(there) or 'none yet'}")
    pages = pages_of(value)
    if args.page > len(pages):
        raise Refused(f"{args.id} has {len(pages)} page{'s' * (len(pages) > 1)}")
    return Page(page=args.page, of=len(pages), items=pages[args.page - 1])
