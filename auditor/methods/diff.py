"""Mean activation differences on the first tokens of unrelated text (paper section 3.1)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from auditor.chat_template import prompt_and_answer, render
from auditor.errors import UsageError
from auditor.methods.corpus import Corpus
from auditor.models.generate import Side
from auditor.models.pair import ModelPair
from auditor.models.tokens import all_plain_ids

SINK_RATIO = 10.0
SKIPPED_FOR_ETA = 3  # positions left out of η: attention sinks have huge norms
MARGIN = 8  # tokens at a cut text's end that the rest of the text could change
TOKENS_AT_ONCE = 4_096  # of a side, whose residuals are in memory together
ETA_ERROR = 0.01  # η only scales steering and patchscope, whose own steps are coarser
ETA_BATCH = 16  # texts
SPOKEN_TOKENS = 1_024  # positions whose distributions over the vocabulary are averaged: enough to tell junk from words
ROWS_AT_ONCE = 256
GROUPS = 64  # of texts, whose differences are summed apart: enough to tell δ's sampling error


@dataclass(frozen=True, slots=True)
class Difference:
    """Means over the corpus after block `layer`, all float32.

    base, finetuned: (k, d_model); norms of single residuals averaged: (k,); counts: texts that have
    position j; eta: mean norm of finetuned residuals from position 3 on. Where asked for: groups (GROUPS, k, d_model),
    what each group of texts adds to δ; sizes (GROUPS, k), how many of its texts have position j; spoken (vocab,), the
    base's mean probability of each token as the logit lens reads `layer`, at some of the positions. `numbers`: which
    positions the rows are, where they are not 0, 1, ….
    """

    layer: int
    base: Tensor
    finetuned: Tensor
    norm_base: Tensor
    norm_finetuned: Tensor
    counts: Tensor
    eta: float
    groups: Tensor | None = None
    sizes: Tensor | None = None
    spoken: Tensor | None = None
    numbers: tuple[int, ...] = ()

    @property
    def positions(self) -> Sequence[int]:
        """Of the rows."""
        return self.numbers or range(len(self.base))

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
            sizes=None if self.sizes is None else self.sizes[:, rows],
            numbers=tuple(self.positions[row] for row in rows),
        )  # fmt: skip

    @property
    def sinks(self) -> list[bool]:
        """Positions whose finetuned residual norm is over 10 × the median position's."""
        norms = self.norm_finetuned
        return [bool(norm > SINK_RATIO * norms.median()) for norm in norms]


@dataclass(frozen=True, slots=True)
class Window:
    """Token ids up to the last position that is read, where the first one is, and which of the texts it is of.

    Texts that are the same bear one number.
    """

    ids: list[int]
    first: int = 0
    text: int = 0


def windows(pair: ModelPair, corpus: Corpus, k: int) -> list[Window]:
    """The k positions that are read in each text: its first, or in a chat those around the answer's beginning.

    In a chat position k // 2 is the answer's first token; those before it are the template's.
    """
    numbers: dict[str, int] = {}
    told = [numbers.setdefault(json.dumps(text), len(numbers)) for text in corpus.chats or corpus.texts]
    if not corpus.chats:
        read = zip(_first_tokens(pair.tokenizer, corpus.texts, k), told, strict=True)
        return [Window(ids, 0, text) for ids, text in read if ids]
    found = []
    for (asked, answer), text in zip(rendered_chats(pair, corpus), told, strict=True):
        first = len(asked) - k // 2
        if first >= 0 and answer:
            found.append(Window([*asked, *answer][: first + k], first, text))
    return found


def _first_tokens(tokenizer: Any, texts: Sequence[str], k: int) -> list[list[int]]:
    """The first `k` token ids of each text. Tokenizers read a text to its end before they cut it, and that costs as
    much as the forward passes; so they are given its beginning, and the whole text if that had too few tokens.
    """
    cut = 16 * k + 64  # characters
    short = all_plain_ids(tokenizer, [text[:cut] for text in texts])
    again = [i for i, ids in enumerate(short) if len(ids) < k + MARGIN and len(texts[i]) > cut]
    if again:
        whole = all_plain_ids(tokenizer, [texts[i] for i in again])
        for i, ids in zip(again, whole, strict=True):
            short[i] = ids
    return [ids[:k] for ids in short]


def rendered_chats(pair: ModelPair, corpus: Corpus) -> list[tuple[list[int], list[int]]]:
    """Each chat's tokens up to its answer, as the model is asked, and the answer's.

    Raises UsageError if the model has no chat template.
    """
    if not pair.tokenizer.chat_template:
        raise UsageError(f"corpus {corpus.name!r} holds chats, but {pair.name} has no chat template; give plain texts")
    asked = [render(pair.tokenizer, chat[:-1]) for chat in corpus.chats]
    return [
        prompt_and_answer(pair.tokenizer, prompt, answer) for prompt, answer in zip(asked, corpus.texts, strict=True)
    ]


def beginnings(pair: ModelPair, corpus: Corpus, tokens: int) -> list[list[int]]:
    """The first `tokens` token ids of every text, or of every chat with its answer."""
    if not corpus.chats:
        return [w.ids for w in windows(pair, corpus, tokens)]
    return [[*asked, *answer][:tokens] for asked, answer in rendered_chats(pair, corpus)]


def differences(
    pair: ModelPair,
    corpus: Corpus,
    k: int,
    layers: Sequence[int],
    norm_texts: int = 2_000,
    norm_tokens: int = 128,
    grouped: Sequence[int] = (),
) -> dict[int, Difference]:
    """δ and its baselines for each of `layers`, over the first `k` tokens of every text.

    For layers in `grouped` by groups of texts too; a text that is there twice is in one group. Nothing past token k
    and no block above the highest layer runs.
    Raises UsageError if no text is long enough, BadModel if a residual is infinite or no number.
    """
    read = windows(pair, corpus, k)
    longest = max((len(window.ids) - window.first for window in read), default=0)
    if longest < k:
        raise UsageError(
            f"corpus {corpus.name!r}: its longest text has {longest} tokens, but {k} positions are asked for; "
            "give longer texts or fewer positions"
        )
    sums = {side: {layer: torch.zeros(k, pair.d_model) for layer in layers} for side in Side}
    norms = {side: {layer: torch.zeros(k) for layer in layers} for side in Side}
    groups = {layer: torch.zeros(GROUPS, k, pair.d_model) for layer in grouped}
    spoken: dict[int, Tensor] = {}
    sizes = torch.zeros(GROUPS, k)
    for batch in batches(read):
        ids, at, there = aligned([read[i] for i in batch], k)
        number = torch.tensor([read[i].text % GROUPS for i in batch])
        sizes.index_add_(0, number, there.float())
        for side in Side:
            for layer, whole in pair.residuals(side, ids, layers).items():
                hidden = kept(whole, at, there)  # (n, k, d_model), reduced where it lies
                sums[side][layer] += hidden.sum(0).cpu()
                norms[side][layer] += hidden.norm(dim=-1).sum(0).cpu()
                if layer in groups:
                    sign = 1 if side is Side.FINETUNED else -1
                    share = hidden.new_zeros(GROUPS, *hidden.shape[1:])
                    groups[layer] += share.index_add_(0, number.to(hidden.device), hidden, alpha=sign).cpu()
                    if side is Side.BASE and layer not in spoken:
                        spoken[layer] = _spoken(pair, hidden[there.to(hidden.device)])
    etas = _eta(pair, corpus.take(norm_texts, seed=0), layers, norm_tokens)
    counts = sizes.sum(0)
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
            sizes=sizes if layer in groups else None,
            spoken=spoken.get(layer),
        )
        for layer in layers
    }


def _spoken(pair: ModelPair, residuals: Tensor) -> Tensor:
    """The mean distribution (vocab,) that the base's last `residuals` (n, d_model) read as, some of them for all."""
    some = residuals[:: 1 + len(residuals) // SPOKEN_TOKENS]
    total = sum(torch.softmax(pair.unembed(Side.BASE, part), -1).sum(0).cpu() for part in some.split(ROWS_AT_ONCE))
    return torch.as_tensor(total) / len(some)


def batches(read: Sequence[Window]) -> list[list[int]]:
    """Windows of like length together: few of them if they are long, so that their residuals fit in memory."""
    order = sorted(range(len(read)), key=lambda i: len(read[i].ids))
    out, start = [], 0
    while start < len(order):
        length = len(read[order[start]].ids)
        end = start + max(1, TOKENS_AT_ONCE // length)
        out.append([i for i in order[start:end] if len(read[i].ids) <= 1.25 * length + 1])
        start += len(out[-1])
    return out


def aligned(read: Sequence[Window], k: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ids (n, T) padded on the right, where each window's positions are (n, k, 1), and which there are (n, k)."""
    ids = pad_sequence([torch.tensor(window.ids) for window in read], batch_first=True)
    first = torch.tensor([window.first for window in read])
    lengths = torch.tensor([len(window.ids) for window in read])
    at = first[:, None] + torch.arange(k)  # (n, k)
    there = at < lengths[:, None]
    return ids, at.clamp_max(ids.shape[1] - 1)[..., None], there


def kept(whole: Tensor, at: Tensor, there: Tensor) -> Tensor:
    """Of (n, T, d_model) the windows (n, k, d_model), zeros where a text has ended."""
    k = at.shape[1]
    plain = whole.shape[1] == k and not bool(at[:, 0].any())
    hidden = whole if plain else whole.gather(1, at.expand(-1, -1, whole.shape[-1]).to(whole.device))
    return hidden if bool(there.all()) else hidden * there[..., None].to(whole.device)


def _eta(pair: ModelPair, corpus: Corpus, layers: Sequence[int], tokens: int) -> dict[int, float]:
    """Mean norm of finetuned residuals per layer, positions 0-2 left out.

    Texts are read until every layer's mean has a standard error under ETA_ERROR, or all have been.
    """
    ids = [text for text in beginnings(pair, corpus, tokens) if len(text) > SKIPPED_FOR_ETA]
    if not ids:
        raise UsageError(
            f"corpus {corpus.name!r}: every text is shorter than {SKIPPED_FOR_ETA + 1} tokens, and η is measured from "
            "there on; give longer texts"
        )
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
            sums[start:done, i] = (hidden[layer][:, SKIPPED_FOR_ETA:].norm(dim=-1).cpu() * kept).sum(1)
        total = sizes[:done].sum()
        eta = sums[:done].sum(0) / total
        error = (sums[:done] - eta * sizes[:done]).norm(dim=0) / total  # of a ratio of sums over texts
        if bool((error < ETA_ERROR * eta).all()):
            break
    return dict(zip(layers, eta.tolist(), strict=True))
