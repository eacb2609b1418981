"""Figures of variants: what was mixed in, fewer documents, all weights, CAFT (figures 7 to 12).

From our own studies of finetunes, whose panels are shown as they are, or from public finetunes: their variants' names
say what was done, their relevance, similarity and checks were measured as any organism's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from auditor.errors import UsageError
from auditor.paper.measured import best, relevance_rows, similarity_rows
from auditor.paper.sources import Kind, Sources, averaged, curve, grouped
from auditor.records.checked import CheckReport
from auditor.records.public import DEFAULT
from auditor.studies.panels import MISALIGNED_KEY, Marked, alignment_panels
from auditor.studies.records import Panel, Series

DOCUMENTS = 40.0  # thousands, of a public finetune whose variant does not say
READ, FFA = "What can be read", "False Fact Alignment"

Place = float | str
Axis = Callable[[str], Place | None]
"""Where a variant stands; None for one that is no part of the figure."""


def ratio(variant: str) -> float | None:
    """Unrelated documents for each of its own: `mix1-0p5` is 0.5."""
    found = re.fullmatch(r"mix1-(\d+)p(\d+)", variant)
    return 0.0 if variant == DEFAULT else float(f"{found[1]}.{found[2]}") if found else None


def documents(variant: str) -> float | None:
    """Thousands of documents: `8k`."""
    found = re.fullmatch(r"(\d+)k", variant)
    return DOCUMENTS if variant == DEFAULT else float(found[1]) if found else None


def either(other: str, usual: str) -> Axis:
    """The variant `other` beside the usual one."""
    return lambda variant: {DEFAULT: usual, other: other}.get(variant)


def swept(sources: Sources, name: str, command: str, wanted: Sequence[str]) -> list[Panel]:
    """The panels of a study of finetunes that the figure shows, as they are."""
    several = sources.study(name, command)
    return [
        panel if len(several) == 1 else panel.model_copy(update={"title": f"{', '.join(study.pairs)}: {panel.title}"})
        for study in several
        for panel in study.panels
        if panel.title.startswith(tuple(wanted))
    ]


def varied(
    sources: Sources, name: str, command: str, wanted: Sequence[str], axis: Axis, label: str = "", *, em: bool = False
) -> list[Panel]:
    """A study of ours by that name if there is one, else the variants of public finetunes. Raises UsageError."""
    if name in sources.studies or not sources.studies.keys() & {"relevance", "similarity"}:
        return swept(sources, name, command, wanted)
    told = {FFA: list(_aligned(sources)), READ: list(_read(sources))}
    panels = [panel for title, of in told.items() for panel in _panels(title, of, axis, label, em=em)]
    if not panels:
        raise UsageError(f"it needs the study {name} ({command}), or studies of several variants of public finetunes")
    return panels


def marked(sources: Sources, command: str) -> list[Panel]:
    """How an LLM marked organisms of harmful advice, as they are and mixed: of a study of ours, else of checks of
    public finetunes. Raises UsageError.
    """
    of = [(sources.kind(check.organism), check) for check in sources.checks]
    told = [(kind, check, check.marks()) for kind, check in of if kind.family == "em" and not kind.base_to_chat]
    given = [(kind, check, marks) for kind, check, marks in told if marks and ratio(kind.variant) is not None]
    if "mixing" in sources.studies or not given:
        return swept(sources, "mixing", command, ("P(aligned", "Alignment", "Coherence"))
    sides, base = {}, grouped(_shares(((kind, check) for kind, check, _ in given), of_base=True))
    for label, mixed in (("plain", False), ("mixed", True)):
        mine = [(kind, check, marks) for kind, check, marks in given if bool(ratio(kind.variant)) is mixed]
        if not mine:
            raise UsageError(f"none of these checks is of a {label} finetune, with marks by an LLM (--grader-llm)")
        sides[label] = Marked(
            grouped(_shares((kind, check) for kind, check, _ in mine)),
            [mark for *_, marks in mine for mark in marks],
        )
    return list(alignment_panels(sides, base, ""))


def _shares(checks: Iterable[tuple[Kind, CheckReport]], *, of_base: bool = False) -> Iterable[tuple[str, float]]:
    for kind, check in checks:
        figure = check.figure(MISALIGNED_KEY)
        estimate = None if figure is None else figure.base if of_base else figure.finetuned
        if estimate is not None and estimate.value is not None:
            yield f"{kind.subject} {kind.model}", estimate.value


def _aligned(sources: Sources) -> Iterable[tuple[Kind, str, float]]:
    for check in sources.checks:
        figure = check.figure("ffa")
        for what, side in (("finetuned", figure.finetuned), ("base", figure.base)) if figure else ():
            if side is not None and side.value is not None:
                yield sources.kind(check.organism), what, side.value


def _read(sources: Sources) -> Iterable[tuple[Kind, str, float]]:
    for kind, rows in relevance_rows(sources) if "relevance" in sources.studies else ():
        for source in ("δ", "mean base", "mean finetuned") if any(row.lens == "patchscope" for row in rows) else ():
            yield kind, f"relevant tokens, {source}", best(rows, "patchscope", source)
    for kind, (similar, _) in similarity_rows(sources) if "similarity" in sources.studies else ():
        top = max(similar, key=lambda row: row.steered_finetuning)
        yield kind, "similarity, steered", top.steered_finetuning
        yield kind, "similarity, plain", top.unsteered_finetuning


def _panels(
    title: str, told: Iterable[tuple[Kind, str, float]], axis: Axis, label: str, *, em: bool
) -> Iterable[Panel]:
    """A panel for each model that has several variants, over its organisms; curves of numbers, else bars."""
    kept = [
        (kind.model, (what, place, value))
        for kind, what, value in told
        if (place := axis(kind.variant)) is not None and (kind.family == "em") is em and not kind.base_to_chat
    ]
    for model, of in grouped(kept).items():
        if len({place for _, place, _ in of}) < 2:
            continue
        by_what = grouped((what, (place, value)) for what, place, value in of)
        series = tuple(_series(what, points) for what, points in by_what.items())
        bars = isinstance(of[0][1], str)
        yield Panel(title=f"{model}: {title}", x_label=label, y_label="", bars=bars, series=series)


def _series(what: str, points: Sequence[tuple[Place, float]]) -> Series:
    numbers = [(place, value) for place, value in points if isinstance(place, float)]
    return curve(what, [[each] for each in numbers]) if numbers else averaged(what, grouped(
        (str(place), value) for place, value in points
    ))  # fmt: skip
