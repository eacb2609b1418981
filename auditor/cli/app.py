"""All commands, wired in one place."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

import auditor
from auditor.cli import (
    agents,
    ask,
    audit,
    card,
    cards,
    compare,
    doctor,
    evaluate,
    evidence,
    gate,
    grade,
    graders,
    lenses,
    mcp,
    organisms,
    paper,
    push,
    report,
    runs,
    scaffold,
    serve,
    study,
    tools,
    transcript,
    worker,
)
from auditor.cli.examples import show_examples
from auditor.cli.pairs import on_machine
from auditor.cli.shared import choose_machine, choose_verbosity, choose_workspace

app = typer.Typer(
    name="auditor",
    help="Find out what a model was finetuned for, from the difference of its activations to its base's.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"auditor {auditor.__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    workspace: Annotated[
        Path | None, typer.Option(help="Your workspace folder; default: the nearest with an auditor.toml.")
    ] = None,
    no_workspace: Annotated[
        bool, typer.Option("--no-workspace", help="Load no plugins, cards or settings but the built-in ones.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("-v", "--verbose", help="Show the libraries' warnings and bars, and tracebacks.")
    ] = False,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    choose_verbosity(verbose)
    choose_workspace(workspace, none=no_workspace)
    choose_machine()


app.command("evaluate")(on_machine(evaluate.evaluate))
app.command("audit")(on_machine(audit.audit))
app.command("show")(transcript.show)
app.command("compare")(compare.compare)
app.command("report")(report.report)
app.command("view")(report.view)
app.command("grade")(on_machine(grade.grade))
app.command("export")(runs.export)
app.command("push")(push.push)
app.command("card")(card.card)
app.command("worker")(on_machine(worker.worker))
app.command("merge")(worker.merge)
app.command("evidence")(on_machine(evidence.evidence))
app.command("gate")(on_machine(gate.gate))
app.command("ask")(on_machine(ask.ask))
app.command("serve")(on_machine(serve.serve))
app.command("mcp")(on_machine(mcp.mcp))
app.command("init")(scaffold.init)
app.command("doctor")(doctor.doctor)
app.add_typer(runs.app, name="runs")
app.add_typer(organisms.app, name="organisms")
app.add_typer(paper.app, name="paper")
app.add_typer(tools.app, name="tools")
app.add_typer(lenses.app, name="lenses")
app.add_typer(graders.app, name="graders")
app.add_typer(agents.app, name="agents")
app.add_typer(cards.suites, name="suites")
app.add_typer(cards.rubrics, name="rubrics")
app.add_typer(study.app, name="study")

show_examples(app)
if {"_AUDITOR_COMPLETE", "_AUDITOR_ADL_COMPLETE"} & os.environ.keys():  # a TAB asks
    from auditor.cli.completing import complete_names

    complete_names(app)
