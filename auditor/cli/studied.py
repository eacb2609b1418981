"""What every study leaves: its JSON, its plot, and its figures on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape
from rich.table import Table

from auditor.cli.shared import out
from auditor.files import write_atomically
from auditor.studies.records import Study

STUDIES = Path("studies")


def written(study: Study, to: Path, *, plot: bool) -> None:
    """Write it to a folder that is there, and show it."""
    paths = [to / f"{study.study}.json"]
    write_atomically(paths[0], study.model_dump_json(indent=1))
    if plot and study.panels:
        from auditor.studies.plot import draw

        paths.append(to / f"{study.study}.png")
        draw(study, paths[1])
    _show(study)
    for note in study.notes:
        out.print(f"[yellow]note:[/] {escape(note)}", highlight=False, soft_wrap=True)
    out.print(
        f"{' · '.join(escape(str(path)) for path in paths)} · {study.seconds:.0f} s", style="dim", highlight=False
    )


def _show(study: Study) -> None:
    """The figures, panel by panel; a series may lack some of the others' places."""
    for panel in study.panels:
        table = Table(title=escape(panel.title), title_justify="left")
        table.add_column(panel.x_label or " ")
        for x in panel.xs:
            table.add_column(escape(x) if isinstance(x, str) else f"{x:g}", justify="right")
        for series in panel.series:
            told = {x: f"{value:.3g}" for x, value in zip(series.x, series.y, strict=True)}
            table.add_row(escape(series.label), *(told.get(x, "–") for x in panel.xs))
        out.print(table)
