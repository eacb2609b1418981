"""What lies beside the messages for an agent that reads records: neither kept with them, nor sent to an endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage

from auditor.agent.overview import seen_by
from auditor.agent.reading import RECORDS
from auditor.evidence.mapping import Evidence
from auditor.types import Agent


def with_records(
    messages: Sequence[AnyMessage],
    agent: Agent,
    datasets: Mapping[str, Evidence],
    left: Mapping[str, int],
    *,
    has_base: bool = True,
) -> list[AnyMessage]:
    """The first message of the user with what the overview is made of, the tools' results, and what is left."""
    told: list[AnyMessage] = []
    number = 0
    for message in messages:
        records: dict[str, Any] = {}
        if isinstance(message, HumanMessage):
            records = dict(left)
            if not any(isinstance(earlier, HumanMessage) for earlier in told):
                records |= {
                    "seen": seen_by(agent, datasets), "above_chance": _traces(agent, datasets), "has_base": has_base,
                }  # fmt: skip
        elif isinstance(message, ToolMessage):
            number += 1
            records = {"id": f"O{number}", "result": message.artifact}
        beside = {**message.additional_kwargs, RECORDS: records} if records else message.additional_kwargs
        told.append(message.model_copy(update={"additional_kwargs": beside}))
    return told


def _traces(agent: Agent, datasets: Mapping[str, Evidence]) -> list[bool]:
    """Whether each lens that is shown finds a trace above chance, of those that tell."""
    read = [e[name] for e in datasets.values() for name in agent.overview if name in e]
    return [reading.above_chance for reading in read if reading.above_chance is not None]
