"""Causal effect of δ on the loss (paper figure 6), on finetuning data and on unrelated text, beside chance."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from auditor.evidence.compute import Report
from auditor.methods.causal import CausalEffect, causal_effects, random_differences, random_directions
from auditor.methods.diff import differences
from auditor.methods.layers import layers_read
from auditor.models.generate import Side
from auditor.studies.records import Panel, Series
from auditor.studies.subject import Subject
from auditor.training.documents import Document, encode

HOSTS = {Side.FINETUNED: "base's component in the finetune", Side.BASE: "finetune's component in the base"}


def causal_study(
    subjects: Iterable[Subject], texts: int, tokens: int, count: int, report: Report
) -> tuple[tuple[Panel, ...], dict[str, object]]:
    """Both directions of the swap, for δ at each position, `count` random vectors and as many random differences.

    At every layer that the settings ask for. Raises UsageError if a kind of text has no learned token.
    """
    panels, details = [], {}
    for subject in subjects:
        name, pair, corpus = subject.card.name, subject.pair, subject.recipe.read_corpus()
        settings, seed = subject.settings("differences"), subject.recipe.settings.seed
        k, layers = settings.positions, layers_read(settings.layers, pair.n_layers)
        report(f"{name}: differences")
        diffs = differences(pair, corpus, k, layers, norm_texts=16, norm_tokens=16)
        unrelated = [Document(text=text) for text in corpus.take(texts, seed).texts]
        data = {
            "finetuning data": [encode(d, pair.tokenizer, tokens) for d in subject.drawn(texts)],
            "unrelated text": [encode(d, pair.tokenizer, tokens) for d in unrelated],
        }
        for layer in layers:
            directions = torch.cat(
                [
                    diffs[layer].delta,
                    random_directions(count, pair.d_model, seed),
                    random_differences(pair, corpus.texts, layer, count, seed),
                ]
            )
            at = f", layer {layer}" if len(layers) > 1 else ""
            for host, what in HOSTS.items():
                for label, read in data.items():
                    report(f"{name}: {what}, {label}{at}")
                    effects = causal_effects(pair, host, read, layer, directions)
                    panels.append(_panel(f"{name}, {label}: {what}{at}", effects, k))
                    details[f"{name}, {host}, {label}{at}"] = [effect.model_dump() for effect in effects]
    return tuple(panels), dict(details)


def _panel(title: str, effects: Sequence[CausalEffect], k: int) -> Panel:
    count = (len(effects) - k) // 2
    x = tuple(float(j) for j in range(k))
    own = Series(label="δ", x=x, y=tuple(e.effect for e in effects[:k]), spread=tuple(e.error for e in effects[:k]))
    chance = []
    for label, drawn in (("random vectors", effects[k : k + count]), ("random differences", effects[k + count :])):
        values = np.array([e.effect for e in drawn])
        mean, spread = float(values.mean()), float(values.std())
        chance.append(Series(label=label, x=x, y=(mean,) * k, spread=(spread,) * k))
    return Panel(title=title, x_label="position of δ", y_label="change of loss (nats per token)", series=(own, *chance))
