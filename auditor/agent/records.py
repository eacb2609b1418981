"""What lies beside the messages for an agent that reads records: neither kept with them, nor sent to an endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage

from auditor.agent.overview import has_base, seen_by
from auditor.agent.reading import RECORDS
from auditor.evidence.mapping import Evidence
from auditor.readings import LEVEL, together
from auditor.records.cards import Agent


def with_records(
    messages: Sequence[AnyMessage],
    agent: Agent,
    datasets: Mapping[str, Evidence],
    left: Mapping[str, int | None],
    free: Sequence[str] = (),
) -> list[AnyMessage]:
    """The first message of the user with what the overview is made of, the tools' results, and what is left.

    `free`: the tools that cost nothing.
    """
    told: list[AnyMessage] = []
    number = 0
    for message in messages:
        records: dict[str, Any] = {}
        if isinstance(message, HumanMessage):
            records = dict(left)
            if not any(isinstance(earlier, HumanMessage) for earlier in told):
                records |= {"seen": seen_by(agent, datasets), "trace": _trace(agent, datasets)}
                records |= {"has_base": has_base(datasets), "datasets": list(datasets), "free": list(free)}
        elif isinstance(message, ToolMessage):
            number += 1
            records = {"id": f"O{number}", "result": message.artifact}
        beside = {**message.additional_kwargs, RECORDS: records} if records else message.additional_kwargs
        told.append(message.model_copy(update={"additional_kwargs": beside}))
    return told


def _trace(agent: Agent, datasets: Mapping[str, Evidence]) -> bool | None:
    """Whether the lenses that are shown find a trace above chance together, in any dataset; None: not tested."""
    found = [together(evidence.only(agent.overview)) for evidence in datasets.values()]
    tested = [each.p < LEVEL for each in found if each is not None]
    return any(tested) if tested else None
