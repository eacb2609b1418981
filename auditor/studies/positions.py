"""Position study (paper section 4.3, figure 5): where in a text the trace is, up to the 128th token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from auditor.lens.diff import differences
from auditor.lens.relevance import learned_text, relevance
from auditor.lens.similarity import pairwise
from auditor.lens.steering import Direction, sample_answers
from auditor.sheet import Report, calibrated, gauge_for, layer_steered, layers_read, read_layer
from auditor.studies.records import Panel, Series
from auditor.studies.subject import Subject
from auditor.types import LayerEvidence

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
        name, pair, settings = subject.card.name, subject.pair, subject.lens.settings
        at, last = spaced(settings.positions), pair.n_layers - 1
        layers, steered = layers_read(settings, pair.n_layers), layer_steered(settings, pair.n_layers)
        report(f"{name}: differences")
        diffs = differences(
            pair, subject.lens.corpus, settings.positions, sorted({*layers, last}),
            settings.norm_texts, settings.norm_tokens,
        )  # fmt: skip
        report(f"{name}: lens at {len(at)} positions")
        sheets = [
            read_layer(pair, diffs[layer].at(at), subject.lens, with_patchscope=layer in layers, numbers=at)
            for layer in sorted(diffs)
        ]
        shares = [row for sheet in sheets for row in relevance(sheet, subject.judge) if row.source == "δ"]
        x = tuple(float(j) for j in at)

        def add(panel: str, y: Sequence[float], x: tuple[float, ...] = x, name: str = name) -> None:
            curves.setdefault(panel, []).append(Series(label=name, x=x, y=tuple(y)))

        for sheet in (sheet for sheet in sheets if sheet.layer in layers):
            add(f"‖δ‖ / η, layer {sheet.layer}", [p.norm_delta / sheet.eta for p in sheet.positions])
        add("texts that are long enough", [float(p.n_texts) for p in sheets[0].positions])
        add(f"cohesion of the last layer's tokens (sd), layer {last}", _cohesion(subject, sheets[-1]))
        for lens, layer in dict.fromkeys((row.lens, row.layer) for row in shares):
            own = [row.share for row in shares if (row.lens, row.layer) == (lens, layer)]
            add(f"relevant tokens, {lens}, layer {layer}", own)
        details[name] = [sheet.model_dump() for sheet in sheets]
        if steer:
            report(f"{name}: steering at {len(at)} positions")
            directions = [Direction(steered, j, diffs[steered].delta[j], diffs[steered].eta) for j in at]
            add("cosine of steered answers with the finetuning data", _steered(subject, directions))
    panels = tuple(
        Panel(title=title, x_label="position", y_label="", log_x=True, series=tuple(series))
        for title, series in curves.items()
    )
    return panels, details


def _cohesion(subject: Subject, sheet: LayerEvidence) -> list[float]:
    gauge = gauge_for(subject.pair, subject.lens)
    return [gauge.measure([t.token for t in p.logit_lens.top[:20]]).cohesion for p in sheet.positions]


def _steered(subject: Subject, directions: Sequence[Direction]) -> list[float]:
    pair, lens, embed = subject.pair, subject.lens, subject.lens.grading.embed
    steerings = [d.steering(alpha) for d, alpha in zip(directions, calibrated(pair, lens, directions), strict=True)]
    answers = sample_answers(pair, lens.prompts, steerings, lens.settings.steering, lens.settings.seed)
    trained = embed([text for d in subject.drawn(FINETUNING_TEXTS) if (text := learned_text(d))])
    return [pairwise(embed([t for texts in by_prompt for t in texts]), trained) for by_prompt in answers]
