"""`auditor paper`: the paper's figures, from runs and studies of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from auditor.cli.runs import RUNS
from auditor.cli.shared import JsonFlag, out, print_json, workspace
from auditor.cli.studied import written
from auditor.errors import UsageError
from auditor.paper.published import Row
from auditor.records.checked import CheckReport
from auditor.studies.records import Study

if TYPE_CHECKING:  # which imports numpy
    from auditor.paper.sources import Sources

app = typer.Typer(help="The paper's figures, drawn from runs and studies of one's own.", no_args_is_help=True)


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """What can be drawn, and the commands that make what it is drawn from."""
    from auditor.paper.figures import FIGURES

    if json:
        print_json([{"figure": f.number, "title": f.title, "commands": f.commands, "note": f.note}
                    for f in FIGURES.values()])  # fmt: skip
        return
    for each in FIGURES.values():
        out.print(f"[bold]{each.number}[/]  {escape(each.title)}", highlight=False)
        for command in each.commands:
            out.print(f"    {escape(command)}", style="dim", highlight=False, soft_wrap=True)


@app.command()
def figure(
    number: Annotated[int, typer.Argument(help="As in the paper: 2 to 21.")],
    sources: Annotated[list[Path], typer.Argument(help="Runs (folders, names in --in); JSON of studies, checks.")],
    to: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for figure-N.json and its picture.")] = Path(
        "paper"
    ),
    plot: Annotated[bool, typer.Option(help="Draw the picture too.")] = True,
    folder: Annotated[Path, typer.Option("--in", metavar="DIR", help="Folder that runs are kept in.")] = RUNS,
) -> None:
    """Draw the paper's figure NUMBER from these; the values that the paper prints stand beside ours."""
    from auditor.paper.figures import FIGURES, USUAL
    from auditor.paper.sources import usual

    if number not in FIGURES:
        raise UsageError(f"figure {number}: there are {', '.join(map(str, FIGURES))} (`auditor paper list`)")
    wanted = FIGURES[number]
    found = read_sources(sources, folder)
    panels, rows = wanted.drawn(found)
    to.mkdir(parents=True, exist_ok=True)
    studied = [pair for several in found.studies.values() for study in several for pair in study.pairs]
    audited = [cell.organism for cell in found.comparison.cells] if found.comparison else []
    pairs = dict.fromkeys([*studied, *audited])
    left = [pair for pair in pairs if number in USUAL and not usual(found.kind(pair))]
    notes = [wanted.note] if wanted.note else []
    notes += (
        [f"no part of this figure, as variants or compared with a pretrained model: {', '.join(left)}"] if left else []
    )
    study = Study(
        study=f"figure-{number}", pairs=tuple(pairs), judge="", settings={"sources": [str(path) for path in sources]},
        panels=panels, details={"beside the paper": [row.model_dump() for row in rows]},
        notes=tuple(notes), seconds=0.0,
    )  # fmt: skip
    written(study, to, plot=plot)
    if rows:
        _show(rows)


def read_sources(paths: list[Path], folder: Path) -> Sources:
    """Runs compared, studies by name. Raises UsageError, BadFile."""
    from auditor.audits.runs import compared
    from auditor.comparison.compare import compare
    from auditor.paper.sources import Sources, grouped, read_json

    told = [read_json(path) for path in dict.fromkeys(paths) if path.suffix == ".json"]
    runs = [compared(path, folder) for path in dict.fromkeys(paths) if path.suffix != ".json"]
    alone = [(only_position(run.request), run) for run in runs]
    singly = [(position, compare([run])) for position, run in alone if position is not None]
    runs = [run for position, run in alone if position is None]
    studies = grouped((each.study, each) for each in told if isinstance(each, Study))
    for name, several in studies.items():
        pairs = [pair for study in several for pair in study.pairs]
        if twice := [pair for pair in dict.fromkeys(pairs) if pairs.count(pair) > 1]:
            raise UsageError(f"{twice[0]} is in {pairs.count(twice[0])} studies {name}: give one of them")
    checks = [each for each in told if isinstance(each, CheckReport)]
    checked = [each.organism for each in checks]
    if twice := [name for name in checked if checked.count(name) > 1]:
        raise UsageError(f"{twice[0]} is in {checked.count(twice[0])} checks: give one of them")
    return Sources(workspace().organisms, compare(runs) if runs else None, studies, checks, singly)


def only_position(request: Mapping[str, Any]) -> int | None:
    """The one position that a run's agents saw, if it was one."""
    lenses = request.get("suite", {}).get("evidence", {}).get("lenses", {})
    only: list[int] = lenses.get("differences", {}).get("only") or []
    return int(only[0]) if len(only) == 1 else None


def _show(rows: tuple[Row, ...]) -> None:
    table = Table("share of", "the paper's", "ours", "organisms")
    for row in rows:
        ours = "–" if row.ours is None else f"{row.ours:.0%}"
        table.add_row(escape(row.what), f"{row.paper:.0%}", ours, str(row.organisms or "–"))
    out.print(table)
    for note in dict.fromkeys(row.note for row in rows if row.note):
        out.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)
