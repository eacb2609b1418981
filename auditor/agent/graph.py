"""The audit as a LangGraph state machine: START → think → one node per tool → think … → conclude → END."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Protocol

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from pydantic import ValidationError

from auditor.agent.overview import render_overview
from auditor.agent.state import AuditState, fresh_state, left, parse_final
from auditor.errors import Refused
from auditor.models.generate import derive_seed
from auditor.plugins import Context, Tool
from auditor.types import Agent, Limits
from auditor.workspace import Prompt


class Node(Protocol):
    """A step of the graph: reads the state, returns what changes."""

    def __call__(self, state: AuditState) -> dict[str, Any]: ...


UNKNOWN = "unknown_tool"
RESULT_CUT = 12_000  # characters of one tool result that the agent is shown


@dataclass(frozen=True, slots=True)
class Investigation:
    """One audit's fixed parts: who investigates, with what, at what price."""

    agent: Agent
    tools: Mapping[str, Tool]
    prompts: Mapping[str, Prompt]  # system, overview, nudge, conclude, status
    limits: Limits
    context: Context
    chat: BaseChatModel

    def opening(self) -> list[AnyMessage]:
        """System prompt and overview."""
        listed = "\n".join(f"- `{tool.name}`: {tool.description.splitlines()[0]}" for tool in self.tools.values())
        system = self.prompts["system"].render(
            tools=listed, interactions=self.limits.interactions, turns=self.limits.turns
        )
        overview = render_overview(self.prompts["overview"], self.agent, self.context.datasets)
        return [SystemMessage(system), HumanMessage(f"{overview}\n\n{self.status(fresh_state([]))}")]

    def status(self, state: AuditState) -> str:
        return self.prompts["status"].render(**left(state, self.limits))


def think(job: Investigation) -> Node:
    """Let the model read everything and answer with tool calls or a final description."""
    chat = job.chat.bind_tools([tool.schema() for tool in job.tools.values()]) if job.tools else job.chat

    def node(state: AuditState) -> dict[str, Any]:
        reply = chat.invoke(state["messages"])
        assert isinstance(reply, AIMessage)
        usage = reply.usage_metadata or {"input_tokens": 0, "output_tokens": 0}
        update: dict[str, Any] = {
            "turns": state["turns"] + 1,
            "tokens_in": state["tokens_in"] + usage["input_tokens"],
            "tokens_out": state["tokens_out"] + usage["output_tokens"],
        }
        broken = [
            {"name": call.get("name") or "?", "args": call.get("args"), "id": call.get("id") or "?"}
            for call in reply.invalid_tool_calls
        ]
        calls = [{"name": c["name"], "args": c["args"], "id": c["id"]} for c in reply.tool_calls]
        if calls or broken:
            return {**update, "messages": [reply], "pending": [*calls, *broken]}
        final = parse_final(str(reply.text))
        if final is not None:
            return {**update, "messages": [reply], "hypothesis": final}
        spent: AuditState = {**state, **update}  # type: ignore[typeddict-item]
        nudge = HumanMessage(f"{job.prompts['nudge'].render()}\n{job.status(spent)}")
        return {**update, "messages": [reply, nudge]}

    return node


def answer_call(job: Investigation, tool: Tool | None, call: dict[str, Any], state: AuditState) -> tuple[str, int]:
    """The observation for one tool call, and what it cost. Whatever is wrong with it becomes the observation."""
    if tool is None:
        near = difflib.get_close_matches(call["name"], job.tools, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"There is no tool {call['name']!r}{hint} Tools: {', '.join(job.tools)}.", 0
    try:
        args = tool.args.model_validate(call["args"])
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'arguments'}: {e['msg']}" for e in error.errors())
        return f"Wrong arguments for {tool.name}: {wrong}. Nothing was charged.", 0
    cost, remaining = tool.cost(args), left(state, job.limits)["interactions_left"]
    if cost > remaining:
        return (
            f"Refused: this call costs {cost} interactions and {remaining} are left. Nothing was charged.",
            0,
        )
    seed = derive_seed(job.context.seed, state["interactions"], call["id"] if cost == 0 else "")
    try:
        result = tool.run(replace(job.context, seed=seed), args)
        text = json.dumps(tool.returns.dump_python(result, mode="json"), ensure_ascii=False)
    except Refused as refusal:
        return f"Refused: {refusal}. Nothing was charged.", 0
    except Exception as error:  # a plugin's bug must not end the audit
        return f"{tool.name} failed: {type(error).__name__}: {error}. Nothing was charged.", 0
    return text if len(text) <= RESULT_CUT else f"{text[:RESULT_CUT]}… (cut; ask for less)", cost


def tool_node(job: Investigation, tool: Tool | None) -> Node:
    """Validate, charge, run, append an observation; after the last pending call, tell what is left."""

    def node(state: AuditState) -> dict[str, Any]:
        call, *rest = state["pending"]
        text, cost = answer_call(job, tool, call, state)
        update = {"pending": rest, "interactions": state["interactions"] + cost}
        messages: list[AnyMessage] = [ToolMessage(text, tool_call_id=call["id"], name=call["name"])]
        if not rest:
            spent: AuditState = {**state, **update}  # type: ignore[typeddict-item]
            messages.append(HumanMessage(job.status(spent)))
        return {**update, "messages": messages}

    return node


def conclude(job: Investigation) -> Node:
    """One last message without tools; whatever it says is the hypothesis."""

    def node(state: AuditState) -> dict[str, Any]:
        gone = [name.removesuffix("_left") for name, n in left(state, job.limits).items() if n == 0]
        spent = [name for name in gone if name != "interactions"] or ["turns"]
        ask = HumanMessage(job.prompts["conclude"].render(reason=f"No {' and no '.join(spent)} left."))
        reply = job.chat.invoke([*state["messages"], ask])
        text = str(reply.text).strip()
        usage = getattr(reply, "usage_metadata", None) or {"input_tokens": 0, "output_tokens": 0}
        return {
            "messages": [ask, reply],
            "tokens_in": state["tokens_in"] + usage["input_tokens"],
            "tokens_out": state["tokens_out"] + usage["output_tokens"],
            "hypothesis": parse_final(text) or text or "Inconclusive: the agent ended without a description.",
            "inconclusive": parse_final(text) is None,
        }

    return node


def build_graph(
    job: Investigation, checkpointer: BaseCheckpointSaver[str] | None = None
) -> CompiledStateGraph[AuditState]:
    """Wire the nodes. `tests/test_graph.py` walks every edge."""

    def next_call(state: AuditState) -> str:
        name = state["pending"][0]["name"]
        return name if name in job.tools else UNKNOWN

    def after_think(state: AuditState) -> str:
        if state["hypothesis"] is not None:
            return END
        return next_call(state) if state["pending"] else after_tools(state)

    def after_tools(state: AuditState) -> str:
        if state["pending"]:
            return next_call(state)
        remaining = left(state, job.limits)
        return "think" if remaining["turns_left"] and remaining["tokens_left"] else "conclude"

    names = [*job.tools, UNKNOWN]
    graph = StateGraph(AuditState)
    graph.add_node("think", think(job))
    graph.add_node("conclude", conclude(job))
    for name in names:
        graph.add_node(name, tool_node(job, job.tools.get(name)))
        graph.add_conditional_edges(name, after_tools, [*names, "think", "conclude"])
    graph.add_edge(START, "think")
    graph.add_conditional_edges("think", after_think, [*names, "think", "conclude", END])
    graph.add_edge("conclude", END)
    return graph.compile(checkpointer=checkpointer)


def draw(tools: Mapping[str, Tool]) -> str:
    """The state machine with these tools as a Mermaid drawing."""

    class _Nobody(BaseChatModel):
        """Stands where the chat model would: a drawing calls nobody."""

        @property
        def _llm_type(self) -> str:
            return "nobody"

        def _generate(self, *_args: Any, **_kwargs: Any) -> Any:
            raise NotImplementedError

        def bind_tools(self, *_args: Any, **_kwargs: Any) -> Any:
            return self

    job: Any = SimpleNamespace(tools=tools, chat=_Nobody())
    return build_graph(job).get_graph().draw_mermaid()
