"""How charts are drawn with matplotlib: ink that follows a page, points that say what they are, text that is text."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import Any

from auditor.text import visible

COLOURS = ("#2f81d0", "#d9730d", "#2e9960", "#a259c4", "#c9485b", "#7d8590", "#a08400", "#1599a8")
INK, FAINT = "#24292f", "#8c959f"
THEMED = {INK: "var(--ink)", FAINT: "var(--faint)"}  # on a page, colours follow its light or dark
WIDE, NARROW = 7.6, 3.9  # inches, at 100 units each
PLAIN: Any = {"text.parse_math": False, "font.family": "sans-serif", "font.size": 9}  # names are no formulas
NAME = 36  # characters of a label, half of them on a narrow chart
LEGEND = 10  # entries of a legend


class Tips:
    """What a point says when it is pointed at: matplotlib's links around points become SVG titles."""

    def __init__(self) -> None:
        self._texts = list[str]()

    def on(self, points: Any, texts: Sequence[str]) -> None:
        """One text a point."""
        points.set_urls([f"tip:{len(self._texts) + i}" for i in range(len(texts))])
        self._texts += texts

    def placed(self, svg: str) -> str:
        def titled(match: re.Match[str]) -> str:
            return f"<g><title>{escape(visible(self._texts[int(match[1])]))}</title>{match[2]}</g>"

        return re.sub(r'<a xlink:href="tip:(\d+)"[^>]*>(.*?)</a>', titled, svg, flags=re.S)


@contextmanager
def drawing(name: str) -> Iterator[None]:
    """matplotlib's settings inside. Names may be in any script: a page's own font has what matplotlib's lacks."""
    import matplotlib as mpl

    with mpl.rc_context({**PLAIN, "svg.fonttype": "none", "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def as_svg(figure: Any) -> str:
    """For a page: as wide as there is room, its ink the page's."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.S)
    for colour, variable in THEMED.items():
        text = text.replace(colour, variable)
    text = re.sub(r"font: [\d.]+px [^;\"]+", lambda m: re.sub(r"px .*", "px system-ui, sans-serif", m[0]), text)
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'width="100%"', text, count=1)


def label_of(text: str, width: float) -> str:
    return visible(text, NAME if width > NARROW else NAME // 2)


def new_figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_axes(figure: Any, **labels: str) -> Any:
    axes = figure.subplots()
    plain_axes(axes, **labels)
    return axes


def plain_axes(axes: Any, **labels: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    axes.tick_params(colors=INK, which="both", length=3)
    axes.set(**labels)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)


def legend(axes: Any, width: float) -> None:
    handles, names = axes.get_legend_handles_labels()
    if len(names) > LEGEND:
        handles, names = handles[:LEGEND], [*names[: LEGEND - 1], f"… and {len(names) - LEGEND + 1} more"]
    columns = max(1, min(5, int(width * 11 / (max(map(len, names), default=1) + 5))))
    axes.legend(
        handles, names, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, frameon=False, fontsize=8,
        labelcolor=INK, borderaxespad=0.2, handletextpad=0.4, columnspacing=1.0,
    )  # fmt: skip
