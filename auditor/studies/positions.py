"""Position study (paper section 4.3, figure 5): where in a text the trace is, up to the 128th token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from auditor.evidence.compute import Report
from auditor.methods.diff import differences
from auditor.methods.found import PromotedAt
from auditor.methods.layers import layers_read, nearest_to_middle
from auditor.methods.relevance import learned_text, relevance
from auditor.methods.similarity import pairwise
from auditor.methods.steering import Direction, calibrated, sample_answers
from auditor.methods.words import gauge_for
from auditor.studies.records import Panel, Series
from auditor.studies.subject import Subject, read_layer

FINETUNING_TEXTS = 500


def spaced(k: int) -> list[int]:
    """The first five of `k` positions, then powers of two, then the last."""
    return sorted({*range(min(5, k)), *(2**i for i in range(3, 8) if 2**i < k), k - 1})


def position_study(
    subjects: Iterable[Subject], *, steer: bool, report: Report
) -> tuple[tuple[Panel, ...], dict[str, object]]:
    """Norm, cohesion and token relevance by position; with `steer` how near steering comes to the finetuning data."""
    curves: dict[str, list[Series]] = {}
    details: dict[str, object] = {}
    for subject in subjects:
        name, pair, settings = subject.card.name, subject.pair, subject.settings("differences")
        at, last = spaced(settings.positions), pair.n_layers - 1
        layers = layers_read(settings.layers, pair.n_layers)
        steered = nearest_to_middle(layers, pair.n_layers)
        report(f"{name}: differences")
        diffs = differences(
            pair, subject.recipe.read_corpus(), settings.positions, sorted({*layers, last}),
            settings.norm_texts, settings.norm_tokens,
        )  # fmt: skip
        report(f"{name}: lens at {len(at)} positions")
        there = {layer: diffs[layer].at(at) for layer in sorted(diffs)}
        sheets = {layer: read_layer(subject, pair, diff, patch=layer in layers) for layer, diff in there.items()}
        rows = [row for promoted, patched in sheets.values() for row in relevance(promoted, patched, subject.judge)]
        shares = [row for row in rows if row.source == "δ"]
        x = tuple(float(j) for j in at)

        def add(panel: str, y: Sequence[float], x: tuple[float, ...] = x, name: str = name) -> None:
            curves.setdefault(panel, []).append(Series(label=name, x=x, y=tuple(y)))

        for layer in layers:
            add(f"‖δ‖ / η, layer {layer}", (there[layer].delta.norm(dim=-1) / there[layer].eta).tolist())
        add("texts that are long enough", there[last].counts.tolist())
        add(f"cohesion of the last layer's tokens (sd), layer {last}", _cohesion(subject, sheets[last][0]))
        for lens, layer in dict.fromkeys((row.lens, row.layer) for row in shares):
            own = [row.share for row in shares if (row.lens, row.layer) == (lens, layer)]
            add(f"relevant tokens, {lens}, layer {layer}", own)
        details[name] = [told.model_dump() for both in sheets.values() for told in both if told]
        if steer:
            report(f"{name}: steering at {len(at)} positions")
            directions = [Direction(steered, j, diffs[steered].delta[j], diffs[steered].eta) for j in at]
            add("cosine of steered answers with the finetuning data", _steered(subject, directions))
    panels = tuple(
        Panel(title=title, x_label="position", y_label="", log_x=True, series=tuple(series))
        for title, series in curves.items()
    )
    return panels, details


def _cohesion(subject: Subject, promoted: PromotedAt) -> list[float]:
    grading = subject.recipe.grading
    gauge = gauge_for(subject.pair.tokenizer, grading.embed, tuple(grading.background))
    return [gauge.measure([t.token for t in p.read.top[:20]]).cohesion for p in promoted.positions]


def _steered(subject: Subject, directions: Sequence[Direction]) -> list[float]:
    pair, recipe, embed = subject.pair, subject.recipe, subject.recipe.grading.embed
    judge, plain, seed = (
        subject.grader("steering", "coherence_grader"),
        subject.settings("plain_samples"),
        recipe.settings.seed,
    )
    search = subject.settings("steering").calibration
    alphas = calibrated(pair, directions, recipe.calibration_prompts, judge, search, seed)
    steerings = [d.steering(alpha) for d, alpha in zip(directions, alphas, strict=True)]
    answers = sample_answers(pair, recipe.prompts[: plain.prompts], steerings, plain, seed)
    trained = embed([text for d in subject.drawn(FINETUNING_TEXTS) if (text := learned_text(d))])
    return [pairwise(embed([t for texts in by_prompt for t in texts]), trained) for by_prompt in answers]
