"""Mean activation differences on the first tokens of unrelated text (paper section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from auditor.errors import UsageError
from auditor.lens.corpus import Corpus
from auditor.models.generate import Side
from auditor.models.pair import ModelPair

SINK_RATIO = 10.0
SKIPPED_FOR_ETA = 3  # positions left out of η: attention sinks have huge norms
CHUNK = 512  # texts whose residuals are in memory at once
ETA_ERROR = 0.01  # η only scales steering and patchscope, whose own steps are coarser
ETA_BATCH = 16  # texts
GROUPS = 64  # of texts, whose differences are summed apart: enough to tell δ's sampling error


@dataclass(frozen=True, slots=True)
class Difference:
    """Means over the corpus after block `layer`, all float32.

    base, finetuned: (k, d_model); norms of single residuals averaged: (k,); counts: texts that have
    position j; eta: mean norm of finetuned residuals from position 3 on.
    """

    layer: int
    base: Tensor
    finetuned: Tensor
    norm_base: Tensor
    norm_finetuned: Tensor
    counts: Tensor
    eta: float
    groups: Tensor | None = (
        None  # (GROUPS, k, d_model): the share of δ that each group of texts brings; they add up to δ
    )

    @property
    def delta(self) -> Tensor:
        """δ (k, d_model) = mean of h_ft − h_base."""
        return self.finetuned - self.base

    def at(self, positions: Sequence[int]) -> Difference:
        """The same at some of the positions."""
        rows = list(positions)
        return replace(
            self, base=self.base[rows], finetuned=self.finetuned[rows], norm_base=self.norm_base[rows],
            norm_finetuned=self.norm_finetuned[rows], counts=self.counts[rows],
            groups=None if self.groups is None else self.groups[:, rows],
        )  # fmt: skip

    @property
    def sinks(self) -> list[bool]:
        """Positions whose finetuned residual norm is over 10 × the median position's."""
        norms = self.norm_finetuned
        return [bool(norm > SINK_RATIO * norms.median()) for norm in norms]


def tokenized(pair: ModelPair, corpus: Corpus, k: int) -> list[list[int]]:
    """The first `k` token ids of every text; texts without any token are left out."""
    encoded = pair.tokenizer(list(corpus.texts), truncation=True, max_length=k).input_ids
    return [ids for ids in encoded if ids]


def differences(
    pair: ModelPair,
    corpus: Corpus,
    k: int,
    layers: Sequence[int],
    norm_texts: int = 2_000,
    norm_tokens: int = 128,
    grouped: Sequence[int] = (),
) -> dict[int, Difference]:
    """δ and its baselines for each of `layers`, over the first `k` tokens of every text; for those in `grouped` by
    groups of texts too.

    Nothing past token k and no block above the highest layer runs. Raises UsageError if no text is long enough.
    """
    ids = tokenized(pair, corpus, k)
    longest = max((len(text) for text in ids), default=0)
    if longest < k:
        raise UsageError(
            f"corpus {corpus.name!r}: its longest text has {longest} tokens, but {k} positions are asked for; "
            "give longer texts or fewer positions"
        )
    sums = {side: {layer: torch.zeros(k, pair.d_model) for layer in layers} for side in Side}
    norms = {side: {layer: torch.zeros(k) for layer in layers} for side in Side}
    groups = {layer: torch.zeros(GROUPS, k, pair.d_model) for layer in grouped}
    counts = torch.zeros(k)
    for length in sorted({len(text) for text in ids}):
        numbers = torch.tensor([i for i, text in enumerate(ids) if len(text) == length])
        texts = torch.tensor([ids[i] for i in numbers])  # (n, length)
        counts[:length] += len(texts)
        for side in Side:
            for chunk, number in zip(texts.split(CHUNK), numbers.split(CHUNK), strict=True):
                for layer, hidden in pair.residuals(side, chunk, layers).items():
                    sums[side][layer][:length] += hidden.sum(0)
                    norms[side][layer][:length] += hidden.norm(dim=-1).sum(0)
                    if layer in groups:
                        sign = 1 if side is Side.FINETUNED else -1
                        groups[layer][:, :length].index_add_(0, number % GROUPS, hidden, alpha=sign)
    etas = _eta(pair, corpus.take(norm_texts, seed=0), layers, norm_tokens)
    per_text = counts[:, None]
    return {
        layer: Difference(
            layer=layer,
            base=sums[Side.BASE][layer] / per_text,
            finetuned=sums[Side.FINETUNED][layer] / per_text,
            norm_base=norms[Side.BASE][layer] / counts,
            norm_finetuned=norms[Side.FINETUNED][layer] / counts,
            counts=counts,
            eta=etas[layer],
            groups=groups[layer] / per_text if layer in groups else None,
        )
        for layer in layers
    }


def _eta(pair: ModelPair, corpus: Corpus, layers: Sequence[int], tokens: int) -> dict[int, float]:
    """Mean norm of finetuned residuals per layer, positions 0-2 left out.

    Texts are read until every layer's mean has a standard error under ETA_ERROR, or all have been.
    """
    ids = [text for text in tokenized(pair, corpus, tokens) if len(text) > SKIPPED_FOR_ETA]
    if not ids:
        raise UsageError(f"corpus {corpus.name!r}: every text is shorter than {SKIPPED_FOR_ETA + 1} tokens")
    sums = torch.zeros(len(ids), len(layers))  # of the norms in each text
    sizes = torch.tensor([[len(text) - SKIPPED_FOR_ETA] for text in ids])
    eta = torch.zeros(len(layers))
    for start in range(0, len(ids), ETA_BATCH):
        done = min(start + ETA_BATCH, len(ids))
        rows = [torch.tensor(text[:tokens]) for text in ids[start:done]]
        padded = pad_sequence(rows, batch_first=True)  # on the right, where causal attention never looks
        kept = (torch.arange(padded.shape[1]) < sizes[start:done] + SKIPPED_FOR_ETA)[:, SKIPPED_FOR_ETA:]
        hidden = pair.residuals(Side.FINETUNED, padded, layers)
        for i, layer in enumerate(layers):
            sums[start:done, i] = (hidden[layer][:, SKIPPED_FOR_ETA:].norm(dim=-1) * kept).sum(1)
        total = sizes[:done].sum()
        eta = sums[:done].sum(0) / total
        error = (sums[:done] - eta * sizes[:done]).norm(dim=0) / total  # of a ratio of sums over texts
        if bool((error < ETA_ERROR * eta).all()):
            break
    return dict(zip(layers, eta.tolist(), strict=True))
