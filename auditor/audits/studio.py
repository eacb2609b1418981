"""The agent for LangGraph's server and Studio, which read `langgraph.json`: one pair, one agent, a chat with it.

What is audited is configured there, or by AUDITOR_ORGANISM, AUDITOR_AGENT and AUDITOR_BUDGET beside the usual settings.
Nothing is graded, and nothing kept but what the server keeps. Drawing the graph loads no model.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

from langchain_core.messages import AnyMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import StateGraph
from langgraph.graph.message import add_messages
from langgraph.graph.state import CompiledStateGraph
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypedDict

from auditor.agent.calls import Purse
from auditor.agent.graph import Investigation, wired
from auditor.agent.state import AuditState
from auditor.audits.audit import investigation, material_for
from auditor.audits.bench import Bench
from auditor.audits.jobs import jobs_of
from auditor.audits.plan import Plan
from auditor.config import load_settings
from auditor.errors import UsageError
from auditor.evidence.recipe import named_by
from auditor.models.kept import Kept
from auditor.workspace import MARKER, Workspace, find_user_root, load_workspace

_loading = threading.Lock()


class Choice(BaseModel):
    """What is audited, by whom, with how many model interactions."""

    model_config = ConfigDict(frozen=True)  # other keys are the server's own

    organism: str = "cake_bake"
    agent: str = "adl"
    budget: int = Field(5, ge=0)
    suite: str = Field("quickstart", description="whose settings of lenses and limits hold")


class Said(TypedDict, total=False):
    """What the server is sent: nothing, or something to consider."""

    messages: Annotated[list[AnyMessage], add_messages]


async def graph(config: RunnableConfig) -> CompiledStateGraph[Any]:
    """What the server calls for every request. Raises UsageError."""
    return await asyncio.to_thread(graph_for, chosen(config.get("configurable", {})))


def chosen(configured: Mapping[str, Any]) -> Choice:
    """What the server's configuration says, else the environment. Raises UsageError."""
    told = {name: os.environ.get(f"AUDITOR_{name.upper()}") for name in Choice.model_fields}
    told |= {name: configured.get(name) or told[name] for name in told}
    try:
        return Choice(**{name: value for name, value in told.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{first['loc'][0]}: {first['msg']}, not {first['input']!r}") from error


def graph_for(choice: Choice) -> CompiledStateGraph[Any]:
    """The agent's graph over that organism, whose models are loaded when the first step is made. Raises UsageError."""
    ws = _workspace()
    ws.organisms[choice.organism]  # raises, rather now than in the middle
    tools = {tool: ws.tools[tool] for tool in ws.agents[choice.agent].tools}

    def made() -> Investigation:
        with _loading:
            return _investigation(choice)

    server: StateGraph[Any] = StateGraph(AuditState, context_schema=Choice, input_schema=Said)  # type: ignore[arg-type]
    return wired(tools, made, server).compile()


@lru_cache(maxsize=1)
def _workspace() -> Workspace:
    return load_workspace(find_user_root())


@lru_cache(maxsize=1)  # one pair in memory
def _investigation(choice: Choice) -> Investigation:
    user, ws = find_user_root(), _workspace()
    settings = load_settings(user / MARKER if user else None)
    one: dict[str, Any] = {"organisms": (choice.organism,), "agents": (choice.agent,), "budgets": (choice.budget,),
                           "audits": (), "repeats": 1}  # fmt: skip
    (job,) = jobs_of(Plan(ws, ws.suites[choice.suite].model_copy(update=one), settings))
    bench = Bench(ws, settings)
    pair = bench.pair(job.target)
    evidence = bench.evidence(pair, job.evidence, named_by(ws, [job.agent]))
    return investigation(job, bench, pair, material_for(job.agent, bench, evidence), Purse(kept=Kept(job.name)))
