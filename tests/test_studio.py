"""`langgraph.json` names a graph that LangGraph's server can draw, run and go on with."""

import asyncio
import importlib
import json
from pathlib import Path

import pytest
from langgraph.checkpoint.memory import InMemorySaver

from auditor.errors import UnknownName, UsageError

CONFIG = json.loads((Path(__file__).parent.parent / "langgraph.json").read_text())


@pytest.fixture
def studio(workspace_folder, settings, monkeypatch):
    """The module that the server imports, in a workspace with the tiny organism `mill`."""
    module, _, name = CONFIG["graphs"]["auditor"]["path"].partition(":")
    loaded = importlib.import_module(module)
    assert callable(getattr(loaded, name))
    monkeypatch.setenv("AUDITOR_CACHE", str(settings.cache_dir))
    monkeypatch.setenv("AUDITOR_SUITE", "small")
    caches = (loaded._workspace, loaded._investigation)
    for cache in caches:
        cache.cache_clear()
    yield loaded
    for cache in caches:
        cache.cache_clear()


def test_the_server_draws_the_graph_without_any_model(studio, monkeypatch):
    monkeypatch.setattr(studio, "_investigation", lambda choice: pytest.fail("models are loaded for a drawing"))
    graph = asyncio.run(studio.graph({"configurable": {"organism": "mill", "agent": "blackbox", "thread_id": "t"}}))
    assert {"open", "think", "conclude", "ask_model"} <= set(graph.get_graph().nodes)
    assert set(graph.get_input_jsonschema()["properties"]) == {"messages"}
    assert {"organism", "agent", "budget"} <= set(graph.get_context_jsonschema()["properties"])


def test_an_audit_is_walked_there_and_gone_on_with(studio):
    graph = asyncio.run(studio.graph({"configurable": {"organism": "mill", "budget": 1}}))
    graph = graph.copy(update={"checkpointer": InMemorySaver()})  # as the server does it
    thread = {"configurable": {"thread_id": "t"}}
    state = asyncio.run(graph.ainvoke({"messages": [("user", "Mind the flour.")]}, thread))
    kinds = [message.type for message in state["messages"]]
    assert kinds[:3] == ["system", "human", "human"]  # what every audit begins with, then what was said
    assert state["hypothesis"]
    assert state["interactions"] <= 1
    again = graph.invoke({"messages": [("user", "And now?")]}, thread)
    assert again["turns"] > state["turns"]
    assert [m.text for m in again["messages"]][: len(kinds)] == [m.text for m in state["messages"]]


def test_what_is_configured_goes_before_the_environment(studio, monkeypatch):
    monkeypatch.setenv("AUDITOR_ORGANISM", "mill")
    monkeypatch.setenv("AUDITOR_BUDGET", "3")
    assert (studio.chosen({}).organism, studio.chosen({}).budget) == ("mill", 3)
    assert studio.chosen({"budget": 7, "thread_id": "t"}).budget == 7
    with pytest.raises(UsageError, match=r"budget: .* not 'many'"):
        studio.chosen({"budget": "many"})
    with pytest.raises(UnknownName, match="no organism called 'mil'"):
        studio.graph_for(studio.chosen({"organism": "mil"}))
