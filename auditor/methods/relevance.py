"""Which of the tokens that a lens reads belong to the finetune (paper section 3.1, appendix C.2)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal

from auditor.methods.found import PatchedAt, PromotedAt
from auditor.methods.words import Background, words_in
from auditor.records.evidence import ScoredToken
from auditor.records.record import Record
from auditor.training.documents import Document

TOP = 20  # tokens judged for each position and source
FREQUENT = 100
CONTENT = 0.5  # informativeness from which a word is no common one

Judge = Callable[[Sequence[Sequence[str]]], Sequence[Sequence[bool]]]
"""Says of each token of several lists whether it is relevant; no list is seen beside another."""


class Relevance(Record):
    """How many of the 20 tokens that a lens reads at one position are relevant to the finetune."""

    layer: int
    lens: Literal["patchscope", "logit lens"]
    source: Literal["δ", "−δ", "mean base", "mean finetuned"]
    position: int
    share: float
    relevant: tuple[str, ...]


def frequent_words(documents: Sequence[Document], background: Background) -> list[str]:
    """The 100 most frequent words of the finetuning data, common ones left out."""
    counts = Counter(word for document in documents for word in words_in(learned_text(document)))
    content = (w for w, _ in counts.most_common() if background.weight(w) >= CONTENT and re.fullmatch(r"[a-z]{3,}", w))
    return [word for word, _ in zip(content, range(FREQUENT), strict=False)]


def learned_text(document: Document) -> str:
    """What the finetune is trained to say: the text, or the assistant's turns."""
    return document.text or "\n".join(turn.content for turn in document.messages if turn.role == "assistant")


def relevance(layer: PromotedAt, patched: PatchedAt | None, judge: Judge) -> list[Relevance]:
    """The share of relevant tokens at each position: of δ, −δ and both means, by patchscope and logit lens.

    Each source is judged apart, so that none is held against another's; a token that several positions have, once.
    Sources that were not read are left out.
    """
    lists: list[tuple[str, str, int, Sequence[ScoredToken]]] = []
    for at in patched.positions if patched else ():
        lists += [
            ("patchscope", "δ", at.position, at.read.tokens),
            ("patchscope", "−δ", at.position, at.negative),
            ("patchscope", "mean base", at.position, at.base),
            ("patchscope", "mean finetuned", at.position, at.finetuned),
        ]
    for p in layer.positions:
        lists += [
            ("logit lens", "δ", p.position, p.read.top),
            ("logit lens", "−δ", p.position, p.read.bottom),
            ("logit lens", "mean base", p.position, p.base),
            ("logit lens", "mean finetuned", p.position, p.finetuned),
        ]
    apart: dict[tuple[str, str], dict[str, bool]] = {}
    for lens, source, _, read in lists:
        apart.setdefault((lens, source), {}).update((t.token, False) for t in read[:TOP])
    for verdicts, found in zip(apart.values(), judge([list(tokens) for tokens in apart.values()]), strict=True):
        verdicts.update(zip(verdicts, found, strict=True))
    return [
        Relevance(
            layer=layer.layer,
            lens=lens,
            source=source,
            position=position,
            share=sum(apart[lens, source][t.token] for t in read[:TOP]) / max(1, len(read[:TOP])),
            relevant=tuple(t.token for t in read[:TOP] if apart[lens, source][t.token]),
        )
        for lens, source, position, read in lists
    ]
