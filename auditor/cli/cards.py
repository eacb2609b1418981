"""`auditor suites` and `auditor rubrics`: list, show, new."""

from __future__ import annotations

from typing import Annotated

import typer

from auditor.cli.listing import list_shelf, show_card
from auditor.cli.scaffold import new_card
from auditor.cli.shared import JsonFlag, workspace

suites = typer.Typer(help="Suites: which organisms, agents and budgets are run together.", no_args_is_help=True)
rubrics = typer.Typer(help="Rubrics: what each grade of a hypothesis asks for.", no_args_is_help=True)


@suites.command("list")
def list_suites(json: JsonFlag = False) -> None:
    """All suites, how many audits each is, and where they are from."""
    from auditor.audits.plan import pairs_of

    list_shelf(
        workspace().suites,
        lambda item: {
            "organisms": len(item.value.organisms),
            "audits": len(item.value.organisms) * len(pairs_of(item.value)) * item.value.repeats,
            "description": item.value.description.partition(". ")[0].strip(),
        },
        json=json,
    )


@suites.command("show")
def show_suite(name: Annotated[str, typer.Argument()], json: JsonFlag = False) -> None:
    """A suite, with what it takes from the one that it extends; settings at their defaults are left out."""
    show_card(workspace().suites[name], json=json)


@rubrics.command("list")
def list_rubrics(json: JsonFlag = False) -> None:
    """All rubrics, the family that each is for, and where they are from."""
    list_shelf(
        workspace().rubrics,
        lambda item: {"family": item.value.family, "grade 5": item.value.levels.get(5, "")},
        json=json,
    )


@rubrics.command("show")
def show_rubric(name: Annotated[str, typer.Argument()], json: JsonFlag = False) -> None:
    """A rubric: its levels in prose, its criteria, and the grades that follow from them."""
    show_card(workspace().rubrics[name], json=json)


@suites.command("new")
def new_suite(name: Annotated[str, typer.Argument()]) -> None:
    """Write a suite to start from into your workspace."""
    new_card("suites", name)


@rubrics.command("new")
def new_rubric(name: Annotated[str, typer.Argument()]) -> None:
    """Write a rubric to start from into your workspace."""
    new_card("rubrics", name)
