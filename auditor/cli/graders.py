"""`auditor graders`: list, show, new."""

from __future__ import annotations

from typing import Annotated

import typer

from auditor.cli.listing import list_shelf, show_thing
from auditor.cli.scaffold import new_plugin
from auditor.cli.shared import JsonFlag, workspace

app = typer.Typer(help="Graders of hypotheses, coherence and patchscope scales.", no_args_is_help=True)


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """All graders, what they grade, where they are from."""
    list_shelf(
        workspace().graders,
        lambda item: {"kind": item.value.kind, "does": item.value.description.splitlines()[0]},
        json=json,
    )


@app.command()
def show(name: Annotated[str, typer.Argument()], json: JsonFlag = False) -> None:
    """A grader's kind and description."""
    grader = workspace().graders[name]
    show_thing({"name": grader.name, "kind": grader.kind, "description": grader.description}, json=json)


@app.command()
def new(name: Annotated[str, typer.Argument(help="The grader's name, a Python identifier.")]) -> None:
    """Write a grader to start from into your workspace."""
    new_plugin("graders", name)
