"""What an audit carries from node to node, and what it may spend."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, TypedDict

from langchain_core.messages import AnyMessage
from langgraph.graph.message import add_messages

from auditor.types import Limits


class AuditState(TypedDict):
    """The graph's state: messages, the tool calls still to be answered, and what was spent."""

    messages: Annotated[list[AnyMessage], add_messages]
    pending: list[dict[str, Any]]  # {"name", "args", "id"}, in the order the agent made them
    turns: int
    interactions: int
    tokens_in: int
    tokens_out: int
    hypothesis: str | None
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
        hypothesis=None,
        inconclusive=False,
    )


def left(state: AuditState, limits: Limits) -> dict[str, int]:
    """What remains of each budget, never below zero."""
    spent = {
        "interactions_left": limits.interactions - state["interactions"],
        "turns_left": limits.turns - state["turns"],
        "tokens_left": limits.tokens - state["tokens_in"] - state["tokens_out"],
    }
    return {name: max(0, value) for name, value in spent.items()}


_FINAL = re.compile(r"FINAL\(\s*description\s*:\s*[\"“](.*)[\"”]\s*\)?\s*$", re.S)


def parse_final(text: str) -> str | None:
    """The description of a message that ends in FINAL(description: "…"), else None.

    The marker must begin a line; the description may run over several.
    """
    start = text.rfind("\nFINAL(") + 1 if "\nFINAL(" in text else (0 if text.startswith("FINAL(") else -1)
    if start < 0:
        return None
    match = _FINAL.match(text[start:].strip())
    if match is None:
        return None
    try:
        said = str(json.loads(f'"{match[1]}"', strict=False))  # quoted as JSON; line breaks may be plain
    except json.JSONDecodeError:
        said = match[1]
    return said.strip() or None
