"""Steering similarity (paper figure 2b): how near steered answers come to the finetuning data."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from auditor.config import SPREAD
from auditor.errors import UsageError
from auditor.evidence.compute import Report
from auditor.evidence.mapping import Evidence
from auditor.methods.relevance import learned_text
from auditor.methods.said import Steered
from auditor.methods.similarity import Similarity, similarity, within
from auditor.models.embed import load_embedder, longer_than_read
from auditor.studies.records import Panel, Series
from auditor.studies.subject import Subject
from auditor.training.documents import Document

SAMPLES = 500  # texts of the finetuning data and of ordinary chat
CURVES = {
    "steered, finetuning data": "steered_finetuning",
    "plain, finetuning data": "unsteered_finetuning",
    "steered, ordinary chat": "steered_chat",
    "plain, ordinary chat": "unsteered_chat",
}


def similarity_study(
    subjects: Iterable[Subject], chat: Sequence[Document], report: Report
) -> tuple[tuple[Panel, ...], dict[str, object]]:
    """The four curves and the ceiling: by organism at the best position, then position by position."""
    found: dict[str, list[Similarity]] = {}
    ceilings: dict[str, tuple[float, float]] = {}
    cut: dict[str, str] = {}
    for subject in subjects:
        name = subject.card.name
        read = subject.evidence(
            ("steering",),
            lambda stage, name=name: report(f"{name}: {stage}"),  # type: ignore[misc]
        )
        report(f"{name}: embedding texts")
        found[name], ceilings[name] = similarities(subject, read, chat)
        cut[name] = _cut(subject, read, chat)
    details: dict[str, object] = {
        name: {"within": ceilings[name][0], "cut": cut[name], "positions": [row.model_dump() for row in rows]}
        for name, rows in found.items()
    }
    return (_by_organism(found, ceilings), *(_by_position(n, found[n], ceilings[n][0]) for n in found)), details


def similarities(
    subject: Subject, read: Evidence, chat: Sequence[Document]
) -> tuple[list[Similarity], tuple[float, float]]:
    """The curves at each steered position, and the ceiling with its spread."""
    embed, steered = load_embedder(*_embedder(subject)), read.reading("steering", Steered)
    trained, usual = (embed(_drawn(documents)) for documents in (subject.documents, chat))
    plain = embed([text for said in steered.plain for text in said.texts])
    rows = [
        similarity(d.position, embed([t for texts in d.texts for t in texts]), plain, trained, usual)
        for d in sorted(steered.directions, key=lambda d: d.position)
    ]
    return rows, within(trained)


def _embedder(subject: Subject) -> tuple[str, str]:
    """Which one measures similarity, and where it runs: where the models do, if that is one device."""
    settings = subject.recipe.grading.settings
    return settings.similarity_embedder or settings.embedder, "cpu" if settings.device in SPREAD else settings.device


def _cut(subject: Subject, read: Evidence, chat: Sequence[Document]) -> str:
    """How many texts count by their beginning only."""
    steered = read.reading("steering", Steered)
    said = [text for each in steered.plain for text in each.texts]
    said += [text for direction in steered.directions for texts in direction.texts for text in texts]
    texts = [*_drawn(subject.documents), *_drawn(chat), *said]
    count, most = longer_than_read(texts, *_embedder(subject))
    return f"{count} of {len(texts)} texts have more than the {most} tokens that the embedder reads" if count else ""


def _drawn(documents: Sequence[Document]) -> list[str]:
    """Up to 500 texts, drawn with a fixed seed. Raises UsageError if there is none."""
    texts = [text for document in documents if (text := learned_text(document))]
    if not texts:
        raise UsageError("the finetuning data, or the ordinary chats, hold no text that an answer could resemble")
    return random.Random(0).sample(texts, min(SAMPLES, len(texts)))


def _by_organism(found: dict[str, list[Similarity]], ceilings: dict[str, tuple[float, float]]) -> Panel:
    names = tuple(found)
    best = {name: max(rows, key=lambda row: row.steered_finetuning) for name, rows in found.items()}
    bars = [
        Series(label=label, x=names, y=tuple(getattr(best[name], field) for name in names))
        for label, field in CURVES.items()
    ]
    own = Series(
        label="within the finetuning data", x=names, y=tuple(ceilings[n][0] for n in names),
        spread=tuple(ceilings[n][1] for n in names),
    )  # fmt: skip
    return Panel(title="Best position", x_label="", y_label="mean cosine", bars=True, series=(*bars, own))


def _by_position(name: str, rows: Sequence[Similarity], ceiling: float) -> Panel:
    x = tuple(float(row.position) for row in rows)
    series = tuple(Series(label=k, x=x, y=tuple(getattr(row, field) for row in rows)) for k, field in CURVES.items())
    return Panel(
        title=name, x_label="position", y_label="mean cosine", series=series,
        reference=("within the finetuning data", ceiling),
    )  # fmt: skip
