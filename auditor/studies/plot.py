"""A study as a picture, with matplotlib."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from auditor.studies.records import Panel, Series, Study

COLUMNS = 2
NAMED = 4  # organisms in a title; more are counted
WIDE = 60  # letters under an axis from which on they are turned
COLOURS = ("#0969da", "#8c959f", "#bf8700", "#cf222e", "#1a7f37", "#8250df")


def draw(study: Study, path: Path) -> None:
    """Write all panels to `path` (.png, .svg or .pdf)."""
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(study.panels))
    rows = math.ceil(len(study.panels) / columns)
    figure = Figure(figsize=(6.4 * columns, 3.6 * rows), layout="constrained")
    for i, panel in enumerate(study.panels):
        _panel(figure.add_subplot(rows, columns, i + 1), panel)
    judged = f" · judge: {study.judge}" if study.judge else ""
    named = ", ".join(study.pairs) if len(study.pairs) <= NAMED else f"{len(study.pairs)} organisms"
    figure.suptitle(f"{study.study}{': ' if named else ''}{named}{judged}", fontsize=11)
    figure.savefig(path, dpi=150)


def _panel(axes: Any, panel: Panel) -> None:
    if panel.bars:
        _bars(axes, panel)
    else:
        for colour, series in zip(COLOURS * len(panel.series), panel.series, strict=False):
            axes.errorbar(series.x, series.y, marker="o", ms=4, label=series.label, color=colour, **_errors(series))
    if panel.reference is not None:
        label, height = panel.reference
        axes.axhline(height, ls=":", color="grey", label=label)
        if all(isinstance(x, float) and x.is_integer() for x in panel.xs):
            axes.locator_params(axis="x", integer=True)
    if panel.log_x:
        axes.set_xscale("symlog", base=2, linthresh=1)
    axes.axhline(0, lw=0.6, color="black")
    if panel.top is not None:
        axes.set_ylim(top=panel.top)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    axes.title.set_fontsize(10)
    axes.legend(fontsize=7)


def _bars(axes: Any, panel: Panel) -> None:
    """A group of bars for each x, one bar a series; a series may lack some."""
    names, count = panel.xs, len(panel.series)
    width = 0.8 / count
    for i, series in enumerate(panel.series):
        places = [names.index(x) + (i - (count - 1) / 2) * width for x in series.x]
        axes.bar(places, series.y, width, label=series.label, color=COLOURS[i % len(COLOURS)], **_errors(series))
    turned = {"rotation": 20, "ha": "right"} if max(len(str(name)) for name in names) * len(names) > WIDE else {}
    axes.set_xticks(range(len(names)), names, **turned)


def _errors(series: Series) -> dict[str, Any]:
    """What matplotlib draws as error bars: a spread, or intervals, which need not lie evenly."""
    if series.ends:
        below = [max(0.0, y - low) for y, (low, _) in zip(series.y, series.ends, strict=True)]
        above = [max(0.0, high - y) for y, (_, high) in zip(series.y, series.ends, strict=True)]
        return {"yerr": [below, above], "capsize": 2}
    return {"yerr": series.spread, "capsize": 2} if series.spread else {}
