"""`auditor runs` and `auditor export`: what lies on disk, and how it gets elsewhere."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from auditor.cli.shared import JsonFlag, err, out, plain, print_json, show_trust, workspace
from auditor.errors import BadFile, UsageError

app = typer.Typer(help="Runs that lie on disk.", no_args_is_help=True)

RunArgument = Annotated[Path, typer.Argument(help="A run's folder, or its name in --out.")]
In = Annotated[Path, typer.Option("--out", help="Folder that runs are kept in.")]
RUNS = Path("runs")


class Format(StrEnum):
    """What an export is written as."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    EVAL = "eval"


@app.command("list")
def list_runs(out_dir: In = RUNS, json: JsonFlag = False) -> None:
    """All runs of a folder, and how each stands."""
    from auditor.audits.runs import RunSummary, run_folders, summary_of

    found: list[RunSummary] = []
    for folder in run_folders(out_dir):
        try:
            found.append(summary_of(folder))
        except BadFile as error:  # the others are listed all the same
            err.print(f"[yellow]warning:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
    if json:
        print_json([run.model_dump(mode="json") for run in found])
        return
    table = Table()
    for head in ("run", "begun", "suite", "agent", "audits"):
        table.add_column(head)
    for run in found:
        begun = "" if run.begun is None else f"{datetime.fromtimestamp(run.begun):%Y-%m-%d %H:%M}"
        states = ", ".join(f"{count} {state}" for state, count in run.states.items())
        table.add_row(*map(escape, (run.name, begun, run.suite, run.llm, states if run.ledger else f"{states} (old)")))
    out.print(table if found else f"no runs in {escape(str(out_dir))}")


@app.command("show")
def show_run(run: RunArgument, out_dir: In = RUNS, json: JsonFlag = False) -> None:
    """What a run was asked for, how it stands, and its grades; `auditor show` prints one audit."""
    from auditor.audits.calibrate import trust_of
    from auditor.audits.runs import compared, find_run, summary_of
    from auditor.comparison.compare import compare

    folder = find_run(run, out_dir)
    about, found = summary_of(folder), compared(run, out_dir)
    comparison = compare([found], trust=trust_of(workspace()))
    rows, trust = comparison.standings, comparison.judges
    if json:
        told = {"summary": [row.model_dump(mode="json") for row in rows], "request": found.request, "trust": trust}
        print_json({**about.model_dump(mode="json"), **told})
        return
    states = ", ".join(f"{count} {state}" for state, count in about.states.items()) or "nothing yet"
    out.print(f"[bold]{escape(about.name)}[/]: suite {escape(about.suite)}, agent {escape(about.llm)}; {states}")
    table = Table()
    for head in ("grader", "agent", "budget", "graded", "mean", "not"):
        table.add_column(head, justify="left" if head in ("grader", "agent") else "right")
    for row in rows:
        mean = "–" if row.mean is None else f"{row.mean:.2f}"
        table.add_row(row.grader, row.agent, str(row.budget), str(row.n), mean, str(row.failed))
    out.print(table)
    for name, line in trust.items():
        show_trust(name, line)
    for record in found.records:
        if record.error:
            why = plain(record.error)
            out.print(f"[red]{escape(record.id)}[/] {record.status}: {why}", highlight=False, soft_wrap=True)


@app.command("rm")
def remove_run(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or their names in --out.")],
    out_dir: In = RUNS,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete runs. Evidence, which runs share, stays in the cache."""
    from auditor.audits.runs import own_run, remove

    folders = [own_run(run, out_dir) for run in runs]
    if not yes and not typer.confirm(f"Delete {', '.join(map(str, folders))}?"):
        raise UsageError("nothing was deleted")
    for folder in folders:
        remove(folder)
        out.print(f"deleted {escape(str(folder))}", highlight=False)


def export(
    run: RunArgument,
    format: Annotated[
        Format, typer.Option(help="jsonl: audits, calls, transcripts; csv, parquet: tables; eval: logs of Inspect.")
    ],
    to: Annotated[Path | None, typer.Option(help="Folder for the files; default: the run's own.")] = None,
    out_dir: In = RUNS,
    json: JsonFlag = False,
) -> None:
    """Write what a run's ledger holds: rows for audits, grades and LLM calls, or logs/*.eval for `inspect view`."""
    from auditor.audits.runs import find_run, own_run
    from auditor.audits.tables import write

    folder = find_run(run, out_dir) if to else own_run(run, out_dir)
    if to is not None and not to.is_dir():
        raise UsageError(f"--to {to}: give a folder that exists")
    written = write(folder, to or folder, format.value)
    if json:
        print_json([str(path) for path in written])
    else:
        out.print("\n".join(escape(str(path)) for path in written), highlight=False)
