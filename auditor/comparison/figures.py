"""Charts of a comparison, as SVG or PNG: every organism a point, spread, budgets, costs, stated confidence."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from auditor.comparison.costs import MEASURES
from auditor.comparison.drawing import (
    COLOURS,
    FAINT,
    INK,
    LEGEND,
    WIDE,
    Tips,
    as_svg,
    drawing,
    label_of,
    legend,
    new_axes,
    new_figure,
    plain_axes,
)  # fmt: skip
from auditor.comparison.judged import RIGHT
from auditor.records.comparison import Cell, Comparison, Standing

LABELS = {"tokens": "tokens an audit", "cost_usd": "USD an audit", "interactions": "model interactions an audit",
          "lens_seconds": "seconds of reading lenses"}  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P")
MOST_ROWS = 60  # of the spread's organisms

Draw = Callable[[Any, Comparison, str, float, "Tips"], None]


def charts(comparison: Comparison, grader: str) -> dict[str, Draw]:
    """Those that there is something to show in, by title."""
    standings = [each for each in comparison.standings if each.grader == grader and each.mean is not None]
    cells = [cell for cell in comparison.cells if cell.grader == grader]
    found: dict[str, Draw] = {}
    if cells:
        found["Every organism a point"] = _points
    if any(len(cell.scores) > 1 for cell in cells):
        found["Spread over repeats"] = _spread
    if any(len(of) > 1 for of in _by_agent(standings).values()):
        found["Grade against budget"] = _budgets
    if any(_known(standings, measure) for measure in MEASURES):
        found["Grade against what it took"] = _costs
    if any(each.grader == grader and each.n > 1 for each in comparison.confidence):
        found["Stated confidence against what was right"] = _confidence
    return found


def save(comparison: Comparison, path: Path) -> None:
    """The first grader's chart of all organisms, with the spread, in a file of its own. Raises BadFile, UsageError."""
    from auditor.errors import UsageError
    from auditor.files import replacing

    kind = path.suffix.lower()
    if kind not in (".svg", ".png", ".pdf"):
        raise UsageError(f"--plot {path}: its name must end with .svg, .png or .pdf")
    grader = comparison.graders[0] if comparison.graders else ""
    drawn = list(charts(comparison, grader).items())[:2]
    if not drawn:
        raise UsageError("there is nothing to plot: no audit has a grade")
    heights = [_height(draw, comparison, grader) for _, draw in drawn]
    with drawing("plot"):
        figure = new_figure(WIDE, sum(heights))
        parts = figure.subfigures(len(drawn), 1, height_ratios=heights, squeeze=False)
        for (title, draw), part in zip(drawn, parts[:, 0], strict=True):
            part.suptitle(title, color=INK, fontsize=11)
            draw(part, comparison, grader, WIDE, Tips())
        with replacing(path) as written:
            figure.savefig(written, format=kind[1:], dpi=150)


def svg(draw: Draw, comparison: Comparison, grader: str, width: float, name: str) -> str:
    """One chart for a page: its text is text, its ink follows the page. `name`: no two on a page alike."""
    with drawing(name):
        tips, figure = Tips(), new_figure(width, _height(draw, comparison, grader))
        draw(figure, comparison, grader, width, tips)
        return tips.placed(as_svg(figure))


def _height(draw: Draw, comparison: Comparison, grader: str) -> float:
    contenders = sum(each.grader == grader and each.mean is not None for each in comparison.standings)
    contenders = min(contenders, 4 * LEGEND) if draw is _spread else contenders
    organisms = len({cell.organism for cell in comparison.cells if cell.grader == grader})
    if draw is _points:
        return 1.1 + 0.42 * max(2, contenders)
    if draw is _spread:
        return 1.1 + min(organisms, MOST_ROWS) * max(0.28, 0.13 * contenders)
    return 2.9


def _points(figure: Any, comparison: Comparison, grader: str, width: float, tips: Tips) -> None:
    """One row a contender: organisms by family, the mean and its interval (paper, figure 3)."""
    cells = [cell for cell in comparison.cells if cell.grader == grader]
    graded = [each for each in comparison.standings if each.grader == grader and each.mean is not None]
    ranked = sorted(graded, key=lambda each: each.mean or 0.0)
    rows = {each.contender: i for i, each in enumerate(ranked)}
    families, bases = _places(cell.family for cell in cells), _places(cell.base for cell in cells)
    axes = new_axes(figure, xlabel="grade")
    groups: dict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.family, cell.base].append(cell)
    for (family, base), of in groups.items():
        dots = axes.scatter(
            [cell.mean for cell in of], [rows[cell.contender] + _offset(cell.organism) for cell in of], s=26, lw=0,
            marker=MARKERS[bases[base] % len(MARKERS)], color=COLOURS[families[family] % len(COLOURS)], alpha=0.75,
            label=label_of(f"{family}, {base}" if len(bases) > 1 and base else family or "organisms", width),
        )  # fmt: skip
        tips.on(dots, [f"{cell.organism}: {cell.mean:.2f} ({_listed(cell.scores)})" for cell in of])
    means = [each.mean or 0.0 for each in ranked]
    places = [rows[each.contender] - 0.32 for each in ranked]
    for each, at in zip(ranked, places, strict=True):
        if each.ci95:
            axes.plot(each.ci95, (at, at), color=INK, lw=1.6, solid_capstyle="butt")
        said = {"xytext": (4, 3), "textcoords": "offset points", "fontsize": 8, "color": INK}
        axes.annotate(f"{each.mean:.2f}", (each.mean, at), **said)
    marks = axes.scatter(means, places, marker="|", s=110, color=INK, lw=2.4, zorder=3)
    tips.on(marks, [f"{each.contender}: {each.mean:.2f}, {_interval(each)}" for each in ranked])
    axes.set_yticks(range(len(ranked)), [label_of(each.contender, width) for each in ranked])
    _grades(axes, len(ranked))
    legend(axes, width)


def _spread(figure: Any, comparison: Comparison, grader: str, width: float, tips: Tips) -> None:
    """One row an organism: each contender's audits, their mean, and how far they lie apart (paper, figure 15)."""
    cells = [cell for cell in comparison.cells if cell.grader == grader]
    widest = {
        name: max(_range(c) for c in cells if c.organism == name) for name in dict.fromkeys(c.organism for c in cells)
    }
    shown = sorted(sorted(widest, key=lambda name: -widest[name])[:MOST_ROWS], reverse=True)
    rows = {name: i for i, name in enumerate(shown)}
    axes = new_axes(figure, xlabel="grade of each repeat")
    contenders = _places(cell.contender for cell in cells)
    for name, place in contenders.items():
        of = [cell for cell in cells if cell.contender == name and cell.organism in rows]
        shift, colour = (place - (len(contenders) - 1) / 2) * 0.7 / len(contenders), COLOURS[place % len(COLOURS)]
        places = [rows[cell.organism] + shift for cell in of]
        least, most = [min(cell.scores) for cell in of], [max(cell.scores) for cell in of]
        axes.hlines(places, least, most, color=colour, lw=2, alpha=0.6)
        dots = axes.scatter(
            [cell.mean for cell in of], places, s=18, color=colour, lw=0, zorder=3, label=label_of(name, width)
        )
        tips.on(dots, [f"{cell.organism}, {name}: {_listed(cell.scores)}" for cell in of])
    axes.set_yticks(list(rows.values()), [label_of(name, width) for name in rows])
    _grades(axes, len(rows))
    legend(axes, width)


def _grades(axes: Any, rows: int) -> None:
    axes.set(xlim=(0.8, 5.2), ylim=(-0.7, rows - 0.4), xticks=range(1, 6))
    axes.grid(axis="x", color=FAINT, alpha=0.25, lw=0.6)


def _budgets(figure: Any, comparison: Comparison, grader: str, width: float, tips: Tips) -> None:
    """Mean grade and interval against the budget of model interactions."""
    axes = new_axes(figure, xlabel="budget of model interactions", ylabel="mean grade")
    standings = [each for each in comparison.standings if each.grader == grader and each.mean is not None]
    for i, (agent, of) in enumerate(_by_agent(standings).items()):
        of = sorted(of, key=lambda each: each.budget)
        _line(axes, [each.budget for each in of], of, label_of(agent, width), COLOURS[i % len(COLOURS)], tips)
    axes.set_xscale("symlog", linthresh=1, base=2)
    ticks = sorted({each.budget for each in standings})
    axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axes.minorticks_off()
    axes.set(ylim=(0.9, 5.1), yticks=range(1, 6))
    legend(axes, width)


def _costs(figure: Any, comparison: Comparison, grader: str, width: float, tips: Tips) -> None:
    """Mean grade against each thing that audits take."""
    standings = [each for each in comparison.standings if each.grader == grader and each.mean is not None]
    measures = [measure for measure in MEASURES if _known(standings, measure)][: 4 if width > 5 else 2]
    several = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axes, measure in zip(several, measures, strict=True):
        plain_axes(axes, xlabel=LABELS[measure])
        axes.xaxis.label.set_fontsize(8)
        for i, (agent, of) in enumerate(_by_agent(standings).items()):
            known = sorted((each for each in of if getattr(each.costs, measure) is not None),
                           key=lambda each: getattr(each.costs, measure))  # fmt: skip
            xs = [getattr(each.costs, measure) for each in known]
            _line(axes, xs, known, label_of(agent, width), COLOURS[i % len(COLOURS)], tips)
        axes.set(ylim=(0.9, 5.1), yticks=range(1, 6))
        axes.margins(x=0.1)
        axes.locator_params(axis="x", nbins=4)
    several[0].set_ylabel("mean grade", color=INK)
    legend(several[0], width)


def _confidence(figure: Any, comparison: Comparison, grader: str, width: float, tips: Tips) -> None:
    """Share of audits graded 4 or more against the confidence that they state."""
    axes = new_axes(figure, xlabel="stated confidence", ylabel=f"share graded {RIGHT} or more")
    axes.plot((0, 1), (0, 1), color=FAINT, lw=0.8, ls=":")
    for i, each in enumerate(of for of in comparison.confidence if of.grader == grader):
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(
            [b.stated for b in each.curve],
            [b.right for b in each.curve],
            color=colour,
            lw=1,
            label=label_of(each.agent, width),
        )
        stated, right = [point.stated for point in each.curve], [point.right for point in each.curve]
        sizes = [10 + 90 * point.n / each.n for point in each.curve]
        dots = axes.scatter(stated, right, s=sizes, color=colour, lw=0, alpha=0.8)
        tips.on(dots, [f"{each.agent}: states {p.stated:.2f}, right {p.right:.0%} of {p.n}" for p in each.curve])
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.05, 1.05))
    legend(axes, width)


def _line(axes: Any, xs: Sequence[float], of: Sequence[Standing], name: str, colour: str, tips: Tips) -> None:
    """One agent's grades, with their intervals; `name` as the legend has it."""
    axes.plot(xs, [each.mean for each in of], color=colour, lw=1.4, label=name)
    for x, each in zip(xs, of, strict=True):
        if each.ci95:
            axes.plot((x, x), each.ci95, color=colour, lw=1, alpha=0.6)
    dots = axes.scatter(xs, [each.mean for each in of], s=22, color=colour, lw=0, zorder=3)
    tips.on(dots, [f"{each.contender}: {each.mean:.2f}, {_interval(each)}" for each in of])


def _by_agent(standings: Sequence[Standing]) -> dict[str, list[Standing]]:
    found: dict[str, list[Standing]] = defaultdict(list)
    for each in standings:
        found[" · ".join(filter(None, (each.agent, each.llm, each.run)))].append(each)
    return found


def _known(standings: Sequence[Standing], measure: str) -> bool:
    """Whether there are two values to compare."""
    return len({getattr(each.costs, measure) for each in standings if each.costs} - {None}) > 1


def _listed(scores: Sequence[float]) -> str:
    return ", ".join(f"{score:.3g}" for score in scores[:12]) + (", …" if len(scores) > 12 else "")


def _interval(each: Standing) -> str:
    return f"95 %: {each.ci95[0]:.2f} to {each.ci95[1]:.2f}" if each.ci95 else "no interval"


def _range(cell: Cell) -> float:
    return max(cell.scores) - min(cell.scores)


def _places(values: Any) -> dict[str, int]:
    return {value: i for i, value in enumerate(dict.fromkeys(values))}


def _offset(name: str) -> float:
    """Up or down a little, the same for an organism in every row."""
    return (sum(ord(c) * (i + 1) for i, c in enumerate(name)) % 17 - 8) / 40 + 0.08
