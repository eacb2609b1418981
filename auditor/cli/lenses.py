"""`auditor lenses`: list, show, new."""

from __future__ import annotations

from typing import Annotated

import typer

from auditor.cli.listing import list_shelf, show_thing
from auditor.cli.scaffold import new_plugin
from auditor.cli.shared import JsonFlag, workspace

app = typer.Typer(help="Ways of reading a pair.", no_args_is_help=True)


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """All lenses, what they need, where they are from, and what they override."""
    list_shelf(
        workspace().lenses,
        lambda item: {"needs": ", ".join(item.value.needs), "does": item.value.description.splitlines()[0]},
        json=json,
    )


@app.command()
def show(name: Annotated[str, typer.Argument()], json: JsonFlag = False) -> None:
    """What a lens reads, what it needs, and its settings for a suite's `evidence: {lenses: {NAME: …}}`."""
    lens = workspace().lenses[name]
    show_thing(
        {
            "name": lens.name,
            "description": lens.description,
            "needs": list(lens.needs),
            "settings": lens.settings.model_json_schema(),
            "reading": lens.reading.model_json_schema(),
        },
        json=json,
    )


@app.command()
def new(name: Annotated[str, typer.Argument(help="The lens' name, a Python identifier.")]) -> None:
    """Write a lens to start from, with a tool that reads it, into your workspace."""
    new_plugin("lenses", name)
