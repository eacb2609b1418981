"""What an audit carries from node to node, and what it may spend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AnyMessage
from langgraph.graph.message import add_messages

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
    hypothesis: str | None
    findings: dict[str, Any] | None  # the fields of a structured Hypothesis
    inconclusive: bool


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
        hypothesis=None,
        findings=None,
        inconclusive=False,
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


def left(state: AuditState, limits: Limits) -> dict[str, int]:
    """What remains of each budget, never below zero."""
    spent = {
        "interactions_left": limits.interactions - state["interactions"],
        "turns_left": limits.turns - state["turns"],
        "tokens_left": limits.tokens - state["tokens_in"] - state["tokens_guessed"],
    }
    return {name: max(0, value) for name, value in spent.items()}
