"""What an audit carries from node to node, and what it may spend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from langchain_core.messages import AnyMessage
from langgraph.graph.message import add_messages
from typing_extensions import TypedDict  # typing's own tells pydantic too little before 3.12

from auditor.records.cards import Limits

CHARACTERS = 4  # of a token, roughly


class AuditState(TypedDict):
    """The graph's state: messages, the tool calls still to be answered, and what was spent."""

    messages: Annotated[list[AnyMessage], add_messages]
    pending: list[dict[str, Any]]  # {"name", "args", "id"}, in the order the agent made them
    turns: int
    interactions: int
    tokens_in: int
    tokens_out: int
    tokens_guessed: int  # of input, in turns whose usage was not told
    cost_usd: float | None  # None as soon as one call's cost is not known
    seconds: float  # that its steps took, those before a kill too
    hypothesis: str | None
    findings: dict[str, Any] | None  # the fields of a structured Hypothesis
    inconclusive: bool
    ended_by: str  # the limit that made it conclude, if one did


def fresh_state(messages: list[AnyMessage]) -> AuditState:
    """Nothing spent, nothing concluded."""
    return AuditState(
        messages=messages,
        pending=[],
        turns=0,
        interactions=0,
        tokens_in=0,
        tokens_out=0,
        tokens_guessed=0,
        cost_usd=0.0,
        seconds=0.0,
        hypothesis=None,
        findings=None,
        inconclusive=False,
        ended_by="",
    )


def length(messages: Sequence[AnyMessage]) -> int:
    """About how many tokens messages are."""
    return sum(len(str(message.content)) for message in messages) // CHARACTERS


def next_turn(state: AuditState) -> int:
    """About how many input tokens the next turn takes: the last one's, and what was said since."""
    messages = state["messages"]
    for i in range(len(messages) - 1, -1, -1):
        if (took := messages[i].response_metadata.get("call")) and took["tokens"][0]:
            return int(took["tokens"][0]) + length(messages[i:])
    return length(messages) if state["tokens_guessed"] else 0


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a whole run may still take; None is without end. `sharing`: audits that take of it now."""

    tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None
    sharing: int = 1


def reached(state: AuditState, limits: Limits, run: Allowance) -> str:
    """The first limit that leaves no room for another turn and a conclusion; empty if there is room.

    A turn takes what the last one took, its tokens' number apart, which grows with what was said.
    """
    if state["turns"] >= limits.turns:
        return "turns"
    turns = max(1, state["turns"])
    paid, took, read = (state["cost_usd"] or 0.0) / turns, state["seconds"] / turns, next_turn(state)
    spent = state["tokens_in"] + state["tokens_guessed"]
    rooms = {
        "tokens": (None if limits.tokens is None else limits.tokens - spent, read),
        "cost": (None if limits.cost_usd is None else limits.cost_usd - (state["cost_usd"] or 0.0), paid),
        "time": (None if limits.seconds is None else limits.seconds - state["seconds"], took),
        "tokens of the run": (run.tokens, read * run.sharing),
        "cost of the run": (run.cost_usd, paid * run.sharing),
        "time of the run": (run.seconds, took),
    }
    for name, (room, need) in rooms.items():
        if room is not None and room <= 2 * need:
            return name
    return ""


def left(state: AuditState, limits: Limits) -> dict[str, int | None]:
    """What remains of each budget, never below zero; None of one without a limit."""
    spent = {
        "interactions_left": limits.interactions - state["interactions"],
        "turns_left": limits.turns - state["turns"],
        "tokens_left": None if limits.tokens is None else limits.tokens - state["tokens_in"] - state["tokens_guessed"],
    }
    return {name: None if value is None else max(0, value) for name, value in spent.items()}
