"""`auditor report` and `auditor view`: a run to be read, in a file or live in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from auditor.cli.compare import read_run
from auditor.cli.runs import RUNS, In, RunArgument
from auditor.cli.shared import out, settings, workspace
from auditor.errors import UsageError

REPORT = "report.html"


def report(
    run: RunArgument,
    to: Annotated[Path | None, typer.Option("--to", help="The file; default: report.html in the run's folder.")] = None,
    out_dir: In = RUNS,
) -> None:
    """Write RUN as one HTML file: the comparison, what the lenses read, every audit with its claims and transcript."""
    from auditor.audits.runs import own_run

    path = to or own_run(run, out_dir) / REPORT
    demand_writable(path)
    comparison = written(run, out_dir, path)
    out.print(f"[bold]{escape(comparison)}[/]\n{escape(str(path))}", highlight=False)


def written(run: Path, out_dir: Path, path: Path) -> str:
    """The report, and its headline."""
    from auditor.audits.runs import find_run, transcripts_of
    from auditor.reports.readings import kept_readings
    from auditor.reports.write import write_report

    found = read_run(run, out_dir)
    readings = kept_readings(found, workspace(), settings().cache_dir / "evidence")
    with transcripts_of(find_run(run, out_dir)) as transcripts:
        made = write_report(found, transcripts, readings, path)
    return f"{made.headline}. {made.certainty}"


def demand_writable(path: Path) -> None:
    """Raises UsageError before anything is made for a file that cannot be written."""
    if path.is_dir():
        raise UsageError(f"--to {path}: that is a folder; give a file in it")
    if not path.parent.is_dir():
        raise UsageError(f"--to {path}: there is no folder {path.parent}")


def view(
    folder: Annotated[Path, typer.Argument(help="A folder of runs, or one run.")] = RUNS,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8300,
) -> None:
    """Show runs live in a browser, on this machine only, until Ctrl-C."""
    from auditor.audits.runs import run_folders
    from auditor.reports.view import serve_view

    if not folder.is_dir():
        raise UsageError(f"{folder}: there is no such folder; give one that runs are kept in")
    within, one = folder, ""
    if not run_folders(folder) and any(
        path.name == folder.resolve().name for path in run_folders(folder.resolve().parent)
    ):
        within, one = folder.resolve().parent, f"runs/{folder.resolve().name}/"
    serve_view(
        within, workspace(), settings().cache_dir / "evidence", port,
        lambda url: out.print(f"{escape(str(folder))}: {url}{one} (Ctrl-C ends it)", highlight=False),
    )  # fmt: skip
