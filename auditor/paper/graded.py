"""Figures of agents: grades by family and model, base to chat, spread over runs; and shares beside the paper's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from auditor.paper.published import Printed, Row
from auditor.paper.sources import Kind, Sources, averaged, curve, grouped, usual
from auditor.studies.records import Panel, Series

RUN = "auditor evaluate paper --llm … --grader-llm …"
BINS = tuple(-2 + 0.5 * i for i in range(9))  # of deviations from an organism's mean
NARROW = ("sdf", "em", "taboo", "subliminal")  # the families of the paper's 33


def among_the_33(kind: Kind) -> bool:
    """Of the paper's families, as published, and compared with the model that it was finetuned from."""
    return kind.family in NARROW and usual(kind)


def no_domain(kind: Kind) -> bool:
    """All that the paper shows in other figures than those of domains; other families have bars of their own."""
    return kind.family != "domain" and usual(kind)


def grades(sources: Sources, command: str, *, keep: Callable[[Kind], bool] = no_domain) -> list[Panel]:
    """Mean grades by family and model, with the spread over organisms (figures 3, 10, 11, 14, 16)."""
    cells = [(cell, sources.kind(cell.organism)) for cell in sources.cells(command)]
    by_contender = grouped((cell.contender, (str(kind), cell.mean)) for cell, kind in cells if keep(kind))
    series = tuple(averaged(name, grouped(of)) for name, of in by_contender.items())
    return [Panel(title="Grades", x_label="", y_label="mean grade", bars=True, top=5, series=series)] if series else []


def both_ways(sources: Sources, command: str) -> list[Panel]:
    """Grades where the finetune is compared with its chat model, and with that one's pretrained model (figure 4)."""
    cells = [(cell, sources.kind(cell.organism)) for cell in sources.cells(command)]
    subjects = {kind.subject for _, kind in cells if kind.base_to_chat}
    told = [
        (f"{cell.contender}, {'base' if kind.base_to_chat else 'chat'} → finetune", (kind.model, cell.mean))
        for cell, kind in cells
        if kind.subject in subjects
    ]
    series = tuple(averaged(name, grouped(of)) for name, of in grouped(told).items())
    return [Panel(title="Grades", x_label="", y_label="mean grade", bars=True, top=5, series=series)]


def at_positions(sources: Sources) -> list[Panel]:
    """Mean grades of agents that are shown a single position, by model, over organisms (figure 5c)."""
    told: list[tuple[str, tuple[float, float]]] = []
    for position, comparison in sources.singly:
        for cell in comparison.cells:
            kind = sources.kind(cell.organism)
            if cell.grader == comparison.graders[0] and not kind.base_to_chat:
                told.append((f"{kind.model}, {cell.contender}", (float(position), cell.mean)))
    series = tuple(curve(name, [[point] for point in of]) for name, of in grouped(told).items())
    return [Panel(title="Grades of agents that see one position", x_label="position", y_label="mean grade", top=5,
                  log_x=True, series=series)] if series else []  # fmt: skip


def deviations(sources: Sources, command: str) -> list[Panel]:
    """How far single audits lie from their organism's mean: shares of audits, by contender (figure 15)."""
    told = [
        (cell.contender, score - cell.mean)
        for cell in sources.cells(command)
        if len(cell.scores) > 1
        for score in cell.scores
    ]
    series = []
    for name, of in grouped(told).items():
        near = [min(BINS, key=lambda middle, value=value: abs(middle - value)) for value in of]  # type: ignore[misc]
        series.append(Series(label=name, x=BINS, y=tuple(near.count(middle) / len(near) for middle in BINS)))
    if not series:
        return []
    return [Panel(title="Audits around their organism's mean", x_label="grade minus mean", y_label="share of audits",
                  series=tuple(series))]  # fmt: skip


def beside(sources: Sources, command: str, printed: Sequence[Printed]) -> list[Row]:
    """Shares of organisms by their mean grade, ours beside the paper's: of the kinds that the paper has in them."""
    found = sources.runs(command)
    contenders = grouped((f"{each.agent} at {each.budget}", each.contender) for each in found.standings
                         if each.grader == found.graders[0])  # fmt: skip
    cells = sources.cells(command)
    means = grouped((cell.contender, cell.mean) for cell in cells if among_the_33(sources.kind(cell.organism)))
    left = dict.fromkeys(cell.organism for cell in cells if not among_the_33(sources.kind(cell.organism)))
    told = [f"of none of the paper's kinds, and left out of the shares: {', '.join(left)}"] if left else []
    told += [f"grades are those of {found.graders[0]}, of {', '.join(found.graders)}"] if found.graders[1:] else []
    rows = []
    for value in printed:
        which = f"{value.agent} at {value.budget}"
        several = contenders.get(which, [which])  # where runs differ in more than agent and budget
        for contender in several:
            own = means.get(contender, [])
            ours = sum(mean >= value.least for mean in own) / len(own) if own else None
            what = f"{contender if several[1:] else which}: organisms with a mean grade of {value.least} or more"
            note = "; ".join(filter(None, (value.note, *told)))
            rows.append(Row(what=what, paper=value.share, ours=ours, note=note, organisms=len(own)))
    return rows
