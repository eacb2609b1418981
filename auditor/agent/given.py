"""Which of the tools that it was given the offline investigator can use, by their schemas."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from auditor.agent.reading import Reading

Schema = Mapping[str, Any]


def fetches(reading: Reading, tools: Sequence[Schema]) -> list[tuple[str, dict[str, Any]]]:
    """The calls that show whole what the overview cut: claims are held against what was seen. Then every other free
    tool that needs no argument but a dataset, a layer and positions, with those that were read.
    """
    there = {tool["name"] for tool in tools}
    calls = [(name, args) for name, args in reading.details if name in there]
    known = {"dataset": reading.datasets[0]} if reading.datasets else {}
    for _, args in reading.details:
        known |= {key: args[key] for key in ("layer", "positions") if key in args and key not in known}
    for tool in tools:
        name, needed = tool["name"], _needed(tool)
        if name in reading.free and name not in dict(calls) and needed.keys() <= known.keys():
            calls.append((name, {key: known[key] for key in needed}))
    return calls


def asker(reading: Reading, tools: Sequence[Schema]) -> tuple[str, str]:
    """The tool that puts questions to the models, and its argument: `ask_model`, else the first that costs and
    needs a list of texts alone; nothing if none was given.
    """
    asking = {
        tool["name"]: next(iter(needed))
        for tool in tools
        if tool["name"] not in reading.free
        and len(needed := _needed(tool)) == 1
        and all(kind.get("type") == "array" and kind.get("items") == {"type": "string"} for kind in needed.values())
    }
    name = "ask_model" if "ask_model" in asking else next(iter(asking), "")
    return name, asking.get(name, "")


def _needed(tool: Schema) -> dict[str, dict[str, Any]]:
    """The schemas of the arguments that a tool cannot be called without."""
    parameters = tool.get("parameters", {})
    return {key: parameters["properties"][key] for key in parameters.get("required", ())}
