"""Base-to-chat study (paper section 4.2): is the trace still there when chat training lies between the two models?"""

from __future__ import annotations

import torch

from auditor.evidence.compute import Report
from auditor.methods.diff import differences
from auditor.methods.layers import layers_read
from auditor.methods.relevance import relevance
from auditor.models.local import LocalPair
from auditor.studies.records import Panel, Series
from auditor.studies.subject import Subject, read_layer


def base_chat_study(
    subject: Subject, pretrained: LocalPair, report: Report
) -> tuple[tuple[Panel, ...], dict[str, object]]:
    """δ from the chat model beside δ from `pretrained`'s base, both to the finetune: tokens, norms and their angle."""
    settings, corpus = subject.settings("differences"), subject.recipe.read_corpus()
    last, layers = subject.pair.n_layers - 1, layers_read(settings.layers, subject.pair.n_layers)
    read = sorted({*layers, last})
    curves: dict[str, list[Series]] = {}
    details: dict[str, object] = {"tokenizers": pretrained.note}
    deltas = {}
    x = tuple(float(j) for j in range(settings.positions))
    for label, pair in (("from the chat model", subject.pair), ("from the pretrained base", pretrained)):
        report(f"{label}: differences")
        diffs = differences(pair, corpus, settings.positions, read, settings.norm_texts, settings.norm_tokens)
        report(f"{label}: lens")
        sheets = {layer: read_layer(subject, pair, diffs[layer], patch=layer in layers) for layer in read}
        shares = [row for at, patched in sheets.values() for row in relevance(at, patched, subject.judge)]
        shares = [row for row in shares if row.source == "δ"]
        for lens, layer in dict.fromkeys((row.lens, row.layer) for row in shares):
            own = tuple(row.share for row in shares if (row.lens, row.layer) == (lens, layer))
            curves.setdefault(f"relevant tokens, {lens}, layer {layer}", []).append(Series(label=label, x=x, y=own))
        for layer in layers:
            norms = tuple((diffs[layer].delta.norm(dim=-1) / diffs[layer].eta).tolist())
            curves.setdefault(f"‖δ‖ / η, layer {layer}", []).append(Series(label=label, x=x, y=norms))
        deltas[label] = {layer: diffs[layer].delta for layer in read}
        details[label] = [told.model_dump() for both in sheets.values() for told in both if told]
    one, other = deltas.values()
    curves["cosine between the two δ"] = [
        Series(label=f"layer {n}", x=x, y=tuple(torch.cosine_similarity(one[n], other[n], dim=-1).tolist()))
        for n in read
    ]
    panels = tuple(
        Panel(title=title, x_label="position", y_label="", series=tuple(series)) for title, series in curves.items()
    )
    return panels, details
