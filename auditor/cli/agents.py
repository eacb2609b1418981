"""`auditor agents`: list, show, new, graph."""

from __future__ import annotations

from typing import Annotated

import typer

from auditor.cli.listing import list_shelf, show_card
from auditor.cli.scaffold import new_card
from auditor.cli.shared import JsonFlag, out, print_json, workspace

app = typer.Typer(help="Agents: what they see, may call and are told.", no_args_is_help=True)


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """All agents and where they are from."""
    list_shelf(workspace().agents, lambda item: {"description": item.value.description}, json=json)


@app.command()
def show(name: Annotated[str, typer.Argument()], json: JsonFlag = False) -> None:
    """An agent's card."""
    show_card(workspace().agents[name], json=json)


@app.command()
def new(name: Annotated[str, typer.Argument()]) -> None:
    """Write an agent to start from into your workspace."""
    new_card("agents", name)


@app.command()
def graph(name: Annotated[str, typer.Argument()], json: JsonFlag = False) -> None:
    """The agent's state machine as a Mermaid drawing."""
    ws = workspace()
    agent = ws.agents[name]
    from auditor.agent.graph import draw
    from auditor.audits.plan import tools_of

    drawing = draw(tools_of(ws, agent))
    if json:
        print_json({"agent": name, "mermaid": drawing})
    else:
        out.print(drawing, markup=False, highlight=False)
