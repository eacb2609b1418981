"""`auditor tools`: list, show, new."""

from __future__ import annotations

from typing import Annotated

import typer

from auditor.cli.listing import list_shelf, show_thing
from auditor.cli.scaffold import new_plugin
from auditor.cli.shared import JsonFlag, workspace

app = typer.Typer(help="The agent's tools.", no_args_is_help=True)


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """All tools, where they are from, and what they override."""
    list_shelf(workspace().tools, lambda item: {"does": item.value.description.splitlines()[0]}, json=json)


@app.command()
def show(name: Annotated[str, typer.Argument()], json: JsonFlag = False) -> None:
    """What the agent reads of a tool: description, arguments, result."""
    tool = workspace().tools[name]
    show_thing(
        {
            "name": tool.name,
            "description": tool.description,
            "arguments": tool.args.model_json_schema(),
            "returns": tool.returns.json_schema(),
        },
        json=json,
    )


@app.command()
def new(name: Annotated[str, typer.Argument(help="The tool's name, a Python identifier.")]) -> None:
    """Write a tool to start from into your workspace."""
    new_plugin("tools", name)
