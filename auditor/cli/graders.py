"""`auditor graders`: list, show, calibrate, new."""

from __future__ import annotations

from typing import Annotated

import typer

from auditor.cli.calibrate import calibrate
from auditor.cli.listing import list_shelf, show_thing
from auditor.cli.scaffold import new_plugin
from auditor.cli.shared import JsonFlag, workspace
from auditor.plugins import Grader

app = typer.Typer(help="Graders of hypotheses, coherence and patchscope scales.", no_args_is_help=True)
app.command()(calibrate)


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """All graders, what they grade, how far they can be trusted, where they are from."""
    list_shelf(
        workspace().graders,
        lambda item: {
            "kind": item.value.kind,
            "does": item.value.description.splitlines()[0],
            "trust": "\n".join(_trust(item.value)),
        },
        json=json,
    )


@app.command()
def show(name: Annotated[str, typer.Argument()], json: JsonFlag = False) -> None:
    """A grader's kind and description, and how far it can be trusted."""
    grader = workspace().graders[name]
    told = {"name": grader.name, "kind": grader.kind, "description": grader.description, "trust": _trust(grader)}
    show_thing(told, json=json)


@app.command()
def new(name: Annotated[str, typer.Argument(help="The grader's name, a Python identifier.")]) -> None:
    """Write a grader to start from into your workspace."""
    new_plugin("graders", name)


def _trust(grader: Grader) -> list[str]:
    """A line for each model that it was calibrated with; none for graders of anything but hypotheses."""
    from auditor.audits.calibrate import NOT_CALIBRATED, trust_in

    if grader.kind != "hypothesis":
        return []
    known = [item.value for item in workspace().calibrations if item.value.grader == grader.name]
    lines = [(each.llm, trust_in(workspace(), grader.name, each.llm)) for each in known]
    return [f"{llm}: {line}" if grader.llm else line for llm, line in lines] or [NOT_CALIBRATED]
