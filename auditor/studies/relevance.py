"""Token relevance (paper figure 2a): do the tokens that δ reads as belong to the finetune, beside both means?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from auditor.evidence.compute import Report
from auditor.evidence.mapping import Evidence
from auditor.methods.found import LogitLens, Patchscope
from auditor.methods.relevance import Relevance, relevance
from auditor.studies.records import Panel, Series
from auditor.studies.subject import Subject

SOURCES = ("δ", "−δ", "mean base", "mean finetuned")


def relevance_study(subjects: Iterable[Subject], report: Report) -> tuple[tuple[Panel, ...], dict[str, object]]:
    """Shares at the best position, by organism: of those that are no sinks, and of all; then position by position."""
    found: dict[str, list[Relevance]] = {}
    sinks: dict[str, set[int]] = {}
    for subject in subjects:
        name = subject.card.name
        read = subject.evidence(
            ("logit_lens", "patchscope"),
            lambda stage, name=name: report(f"{name}: {stage}"),  # type: ignore[misc]
        )
        report(f"{name}: judging tokens")
        found[name], sinks[name] = judged(subject, read)
    panels = []
    for lens, layer in dict.fromkeys((row.lens, row.layer) for rows in found.values() for row in rows):
        chosen = {n: [r for r in rows if (r.lens, r.layer) == (lens, layer)] for n, rows in found.items()}
        panels.append(_by_organism(f"{lens}, layer {layer}", chosen, sinks))
        panels.append(_by_position(f"δ by {lens}, layer {layer}", chosen))
    details: dict[str, object] = {
        name: {"sinks": sorted(sinks[name]), "rows": [row.model_dump() for row in rows]} for name, rows in found.items()
    }
    return tuple(panels), details


def judged(subject: Subject, read: Evidence) -> tuple[list[Relevance], set[int]]:
    """The shares of all that was read of it, and the positions that are attention sinks."""
    promoted, patched = read.reading("logit_lens", LogitLens), read.reading("patchscope", Patchscope)
    by_layer = {at.layer: at for at in patched.layers}
    rows = [row for at in promoted.layers for row in relevance(at, by_layer.get(at.layer), subject.judge)]
    return rows, {p.position for at in promoted.layers for p in at.positions if p.sink}


def best(rows: Sequence[Relevance], source: str, sinks: Collection[int]) -> float:
    """The share at the best position that is no sink; of all where every one is."""
    read = [row for row in rows if row.source == source]
    return max((row.share for row in [r for r in read if r.position not in sinks] or read), default=0.0)


def _by_organism(title: str, found: dict[str, list[Relevance]], sinks: dict[str, set[int]]) -> Panel:
    names = tuple(found)
    series = [Series(label=s, x=names, y=tuple(best(found[name], s, sinks[name]) for name in names)) for s in SOURCES]
    if any(sinks.values()):  # the paper counts these
        series.append(Series(label="δ, sinks too", x=names, y=tuple(best(found[name], "δ", ()) for name in names)))
    return Panel(
        title=title, x_label="", y_label="relevant tokens, best position", bars=True, top=1, series=tuple(series)
    )


def _by_position(title: str, found: dict[str, list[Relevance]]) -> Panel:
    series = []
    for name, rows in found.items():
        own = [row for row in rows if row.source == "δ"]
        series.append(Series(label=name, x=tuple(float(r.position) for r in own), y=tuple(r.share for r in own)))
    return Panel(title=title, x_label="position", y_label="relevant tokens", top=1, series=tuple(series))
