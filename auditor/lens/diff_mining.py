"""Diff mining: tokens that the finetune makes likelier wherever they could stand (arXiv 2608.26462)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from auditor.errors import UsageError
from auditor.lens.corpus import Corpus
from auditor.lens.diff import Window, aligned, batches, kept, rendered_chats, windows
from auditor.lens.topics import Topic, topics_of
from auditor.models.generate import Side
from auditor.models.pair import ModelPair
from auditor.types import Record

# Left out: what the base says less than once in a million tokens, unless the finetune says it once in ten thousand.
# Far out in the tail log-probabilities drift by much with any training.
RARE, OFTEN = 1e-6, 1e-4
DEPTH = 8  # times `top`: how deep each position is looked into, since many of the first are rare ones
POSITIONS_AT_ONCE = 64  # whose distributions over the vocabulary are in memory together


class MiningSettings(Record):
    """The published numbers: 1,000 texts of 30 tokens, 100 tokens counted at each."""

    tokens: int = Field(30, ge=1, description="positions read in each text")
    top: int = Field(100, ge=1, description="tokens counted at each position")
    shown: int = Field(100, ge=1, description="tokens kept in each list")
    topics: int = Field(6, ge=0, description="groups of tokens that rise together")


class MinedToken(Record):
    """`share`: of the positions, where it is among the first; `mean`: nats; both models' mean probabilities."""

    token: str
    share: float
    mean: float
    base: float
    finetuned: float


class Mined(Record):
    """What rises, by count and by mean difference of log-probabilities; what falls, by count; and topics.

    `short`: positions at which fewer than `top` tokens were counted, for the deeper ones were not looked into.
    """

    texts: int
    positions: int
    short: int
    left_out: int = Field(description="tokens that are too rare to be counted")
    by_count: tuple[MinedToken, ...]
    by_mean: tuple[MinedToken, ...]
    suppressed: tuple[MinedToken, ...]
    topics: tuple[Topic, ...]


@dataclass
class _Sums:
    """Over all positions, per token: differences of log-probabilities and both probabilities; and each position's
    extremes, deepest last.
    """

    named: Tensor  # (vocab,) bool: ids that the tokenizer has a token for
    depth: int
    difference: Tensor = field(init=False)  # (vocab,) float64, as the next two
    base: Tensor = field(init=False)
    finetuned: Tensor = field(init=False)
    risen: list[tuple[Tensor, Tensor]] = field(default_factory=list)  # ids (n, depth) int32, differences
    fallen: list[Tensor] = field(default_factory=list)  # ids

    def __post_init__(self) -> None:
        self.depth = min(self.depth, int(self.named.sum()))
        self.difference, self.base, self.finetuned = torch.zeros(3, len(self.named), dtype=torch.float64)

    def add(self, base: Tensor, finetuned: Tensor) -> None:
        """Log-probabilities (n, vocab) of both models at n positions."""
        apart = finetuned - base
        for total, part in ((self.difference, apart), (self.base, base.exp()), (self.finetuned, finetuned.exp())):
            total += part.sum(0).cpu()
        unnamed = ~self.named.to(apart.device)
        values, ids = apart.masked_fill_(unnamed, -torch.inf).topk(self.depth)
        self.risen.append((ids.int().cpu(), values.cpu()))
        self.fallen.append(apart.masked_fill_(unnamed, torch.inf).topk(self.depth, largest=False).indices.int().cpu())


def as_plain(corpus: Corpus) -> Corpus:
    """The texts as they are; of chats the answers alone."""
    return Corpus(corpus.name, corpus.texts)


def as_answers(corpus: Corpus, prompts: Sequence[str]) -> Corpus:
    """Each text as the answer to one of `prompts`, in turns; chats as they are."""
    asked = [{"role": "user", "content": prompt} for prompt in prompts]
    chats = tuple(
        (asked[i % len(asked)], {"role": "assistant", "content": text}) for i, text in enumerate(corpus.texts)
    )
    return Corpus(corpus.name, corpus.texts, corpus.chats or chats)


def mine(pair: ModelPair, corpus: Corpus, settings: MiningSettings, seed: int = 0) -> Mined:
    """Both models read the first tokens of each text, or of each chat's answer.

    Raises UsageError if no text has a token to read, BadModel for NaN and Inf.
    """
    read = [window for window in _read(pair, corpus, settings.tokens) if window.first < len(window.ids)]
    if not read:
        raise UsageError(f"corpus {corpus.name!r} has no text with a token to read; give texts of a few words")
    sums: _Sums | None = None
    with torch.inference_mode():
        for base, finetuned in _log_probabilities(pair, read, settings.tokens):
            sums = sums or _Sums(_named(pair.tokenizer, base.shape[-1]), DEPTH * settings.top)
            sums.add(base, finetuned)
        assert sums is not None
        return _mined(pair.tokenizer, sums, len(read), settings, seed)


def _read(pair: ModelPair, corpus: Corpus, tokens: int) -> list[Window]:
    """Of each text the first positions; of a chat those from which its answer's first tokens are said."""
    if not corpus.chats:
        return windows(pair, corpus, tokens)
    chats = rendered_chats(pair, corpus)
    ends = [len(asked) - 1 for asked, _ in chats]
    return [Window([*asked, *answer][: end + tokens], end) for (asked, answer), end in zip(chats, ends, strict=True)]


def _log_probabilities(pair: ModelPair, read: list[Window], tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Both models' log-probabilities (n, vocab) of the next token, for some positions after another."""
    last = pair.n_layers - 1
    for batch in batches(read):
        ids, at, there = aligned([read[i] for i in batch], tokens)
        streams = []
        for side in Side:
            whole = pair.residuals(side, ids, [last])[last]
            streams.append(kept(whole, at, there)[there.to(whole.device)].split(POSITIONS_AT_ONCE))  # (n, d_model)
        for base, finetuned in zip(*streams, strict=True):
            logits = (pair.unembed(Side.BASE, base), pair.unembed(Side.FINETUNED, finetuned))
            logs = [part.log_softmax(-1) for part in logits]
            common = min(part.shape[-1] for part in logs)
            yield logs[0][:, :common], logs[1][:, :common].to(logs[0].device)


def _named(tokenizer: Any, vocab: int) -> Tensor:
    ids = torch.tensor(sorted(i for i in tokenizer.get_vocab().values() if i < vocab))
    return torch.zeros(vocab, dtype=torch.bool).index_fill_(0, ids, True)


def _mined(tokenizer: Any, sums: _Sums, texts: int, settings: MiningSettings, seed: int) -> Mined:
    positions = sum(map(len, sums.fallen))
    base, finetuned, mean = sums.base / positions, sums.finetuned / positions, sums.difference / positions
    usual = sums.named & ((base >= RARE) | (finetuned >= OFTEN))
    up, rise = (torch.cat(parts) for parts in zip(*sums.risen, strict=True))  # (positions, depth) each
    down = torch.cat(sums.fallen)
    fit = _first(up, usual, settings.top)
    where, ids = fit.nonzero()[:, 0], up[fit].long()
    risen = ids.bincount(minlength=len(usual))
    fallen = down[_first(down, usual, settings.top)].bincount(minlength=len(usual))

    def told(order: Tensor, counts: Tensor) -> tuple[MinedToken, ...]:
        found: list[MinedToken] = []
        for i in order.tolist():
            text = tokenizer.decode([i])
            if len(found) < settings.shown and usual[i] and any(map(str.isalnum, text)):
                found.append(
                    MinedToken(
                        token=text, share=float(counts[i]) / positions, mean=float(mean[i]), base=float(base[i]),
                        finetuned=float(finetuned[i]),
                    )
                )  # fmt: skip
        return tuple(found)

    # Ties are broken by the mean difference.
    by_mean = mean.argsort(descending=True)
    by_count = by_mean[risen[by_mean].argsort(descending=True, stable=True)]
    last = by_mean.flip(0)
    suppressed = last[fallen[last].argsort(descending=True, stable=True)]
    return Mined(
        texts=texts,
        positions=positions,
        short=int((fit.sum(1) < min(settings.top, int(usual.sum()))).sum()),
        left_out=int((sums.named & ~usual).sum()),
        by_count=told(by_count[risen[by_count] > 0], risen),
        by_mean=told(by_mean, risen),
        suppressed=told(suppressed[fallen[suppressed] > 0], fallen),
        topics=topics_of(tokenizer, where, ids, rise[fit], settings.topics, seed),
    )


def _first(ids: Tensor, usual: Tensor, top: int) -> Tensor:
    """Which of `ids` (positions, depth) are the first `top` of their position that are `usual`."""
    fit = usual[ids.long()]
    return fit & (fit.cumsum(1) <= top)
