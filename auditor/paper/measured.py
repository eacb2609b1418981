"""Figures of what is read: token relevance, steering similarity, positions, causal effects."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from auditor.errors import UsageError
from auditor.methods.causal import CausalEffect
from auditor.methods.relevance import Relevance
from auditor.methods.similarity import Similarity
from auditor.paper.sources import Kind, Sources, averaged, curve, grouped, usual
from auditor.studies.records import Panel, Series, Study

RELEVANCE = "auditor study relevance ORGANISM…"
SIMILARITY = "auditor study similarity ORGANISM… --embedder Qwen/Qwen3-Embedding-0.6B --chat tulu3"
POSITIONS = "auditor study positions ORGANISM… --positions 128 --steer"
CAUSAL = "auditor study causal ORGANISM… --random 50"
BARS = ("δ", "mean base", "mean finetuned")
CURVES = {
    "steered, finetuning data": "steered_finetuning",
    "plain, finetuning data": "unsteered_finetuning",
    "steered, ordinary chat": "steered_chat",
    "plain, ordinary chat": "unsteered_chat",
}
Told = Callable[[Kind], str]
"""What stands under a bar."""


def relevant(
    sources: Sources, lens: str = "patchscope", *, under: Told = str, left_out: Collection[str] = (),
    keep: Callable[[Kind], bool] = usual,
) -> Panel:  # fmt: skip
    """Relevant tokens at the best of all positions, sinks too, by family and model (figures 2a, 13a, 17, 18, 21a)."""
    found = [(kind, rows) for kind, rows in relevance_rows(sources) if keep(kind) and kind.subject not in left_out]
    found = [(kind, rows) for kind, rows in found if all(_of(rows, lens, source) for source in BARS)]
    series = [
        averaged(source, grouped((under(kind), best(rows, lens, source)) for kind, rows in found)) for source in BARS
    ]
    return Panel(
        title=f"Relevant tokens, {lens}", x_label="", y_label="share of the top 20, best position", bars=True, top=1,
        series=tuple(series) if found else (),
    )  # fmt: skip


def relevant_by_position(sources: Sources, lens: str = "patchscope") -> list[Panel]:
    """The same position by position, a panel for each subject, a curve for each model (figure 19)."""
    found = grouped((kind.subject, (kind, rows)) for kind, rows in relevance_rows(sources) if usual(kind))
    return [
        Panel(
            title=f"{subject}, {lens}", x_label="position", y_label="relevant tokens", top=1,
            series=tuple(
                curve(kind.model, [[(float(r.position), r.share) for r in _of(rows, lens, "δ")]]) for kind, rows in own
            ),
        )
        for subject, own in found.items()
    ]  # fmt: skip


def similar(
    sources: Sources, *, under: Told = str,
    keep: Callable[[Kind], bool] = usual,
) -> Panel:  # fmt: skip
    """Steering similarity at the best position, by family and model; subliminal left out (figures 2b, 13b, 21b)."""
    found = [(kind, told) for kind, told in similarity_rows(sources) if keep(kind) and kind.family != "subliminal"]
    best = [(under(kind), max(rows, key=lambda row: row.steered_finetuning), within) for kind, (rows, within) in found]
    series = [
        averaged(label, grouped((name, float(getattr(row, field))) for name, row, _ in best))
        for label, field in CURVES.items()
    ]
    own = averaged("within the finetuning data", grouped((name, within) for name, _, within in best))
    return Panel(title="Steering", x_label="", y_label="mean cosine, best position", bars=True, series=(*series, own))


def similar_by_position(sources: Sources) -> list[Panel]:
    """The curves of each organism (figure 20)."""
    return [
        Panel(
            title=f"{kind.subject}, {kind.model}", x_label="position", y_label="mean cosine",
            reference=("within the finetuning data", within),
            series=tuple(
                Series(label=label, x=tuple(float(r.position) for r in rows), y=tuple(getattr(r, at) for r in rows))
                for label, at in CURVES.items()
            ),
        )
        for kind, (rows, within) in similarity_rows(sources)
        if usual(kind)
    ]  # fmt: skip


def along_positions(sources: Sources) -> list[Panel]:
    """Token relevance and steering by position, a curve for each model over its organisms (figures 5a, 5b)."""
    if "positions" not in sources.studies and sources.singly:
        return []
    wanted = {"relevant tokens, patchscope": "Relevant tokens, patchscope", "cosine of steered answers": "Steering"}
    panels = []
    for beginning, title in wanted.items():
        curves = [
            (sources.kind(series.label).model, list(zip(map(float, series.x), series.y, strict=True)))
            for study in sources.study("positions", POSITIONS)
            for panel in study.panels
            if panel.title.startswith(beginning)
            for series in panel.series
            if usual(sources.kind(series.label))
        ]
        if curves:
            own = tuple(curve(model, points) for model, points in grouped(curves).items())
            panels.append(Panel(title=title, x_label="position", y_label="", log_x=True, series=own))
    return panels


def causes(sources: Sources) -> list[Panel]:
    """The effect of δ in the finetune on both kinds of text, over organisms, beside random vectors (figure 6)."""
    found: dict[tuple[str, str], list[tuple[list[tuple[float, float]], list[tuple[float, float]]]]] = {}
    for study in sources.study("causal", CAUSAL):
        count = int(study.settings["random"])
        for key, told in study.details.items():
            name, host, text = key.split(", ")[:3]
            if host != "finetuned" or not usual(sources.kind(name)):
                continue
            effects = [CausalEffect.model_validate(each) for each in told]
            k = len(effects) - 2 * count
            own = [(float(j), effect.effect) for j, effect in enumerate(effects[:k])]
            drawn = [effect.effect for effect in effects[k : k + count]]
            chance = [(float(j), sum(drawn) / len(drawn)) for j in range(k)]
            found.setdefault((text, sources.kind(name).model), []).append((own, chance))
    return [
        Panel(
            title=f"{model}: {text}", x_label="position of δ", y_label="change of loss, nats per token",
            series=(curve("δ", [own for own, _ in of]), curve("random vectors", [chance for _, chance in of])),
        )
        for (text, model), of in sorted(found.items())
    ]  # fmt: skip


def relevance_rows(sources: Sources) -> list[tuple[Kind, list[Relevance]]]:
    """What the studies of relevance have of each organism, at the layer of its patchscope.

    The logit lens is read at the last layer, too: that is another measurement. Raises UsageError for several layers.
    """
    found = [
        (name, [Relevance.model_validate(row) for row in told.get("rows", ())])
        for name, told in _details(sources.study("relevance", RELEVANCE))
    ]
    told = []
    for name, rows in found:
        layers = {row.layer for row in rows if row.lens == "patchscope"} or {row.layer for row in rows}
        if len(layers) > 1:
            raise UsageError(f"{name} was read at layers {', '.join(map(str, sorted(layers)))}: give a study of one")
        told.append((sources.kind(name), [row for row in rows if row.layer in layers]))
    return told


def similarity_rows(sources: Sources) -> list[tuple[Kind, tuple[list[Similarity], float]]]:
    """What the studies of similarity have of each, position by position, and its ceiling."""
    return [
        (sources.kind(name), ([Similarity.model_validate(row) for row in told["positions"]], told["within"]))
        for name, told in _details(sources.study("similarity", SIMILARITY))
        if told["positions"]
    ]


def _details(studies: Iterable[Study]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    return ((name, told) for study in studies for name, told in study.details.items())


def _of(rows: Iterable[Relevance], lens: str, source: str) -> list[Relevance]:
    return [row for row in rows if (row.lens, row.source) == (lens, source)]


def best(rows: Iterable[Relevance], lens: str, source: str) -> float:
    """The share at the best of all positions, sinks too."""
    return max(row.share for row in _of(rows, lens, source))
