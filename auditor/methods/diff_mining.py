"""Diff mining: tokens that the finetune makes likelier wherever they could stand (arXiv 2608.26462)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from auditor.errors import UsageError
from auditor.methods.broad import Cohesion, against_broad, judged_words
from auditor.methods.corpus import Corpus
from auditor.methods.diff import Window, aligned, batches, kept, rendered_chats, windows
from auditor.methods.topics import Topic, topics_of
from auditor.models.generate import Side
from auditor.models.pair import ModelPair
from auditor.records.evidence import AgainstBroad
from auditor.records.record import Record

# Left out: what the base says less than once in a million tokens, unless the finetune says it once in ten thousand.
# Far out in the tail log-probabilities drift by much with any training.
RARE, OFTEN = 1e-6, 1e-4
HARDLY = 0.005  # of the positions
DEPTH = 8  # times `top`: how deep each position is looked into, since many of the first are rare ones
POSITIONS_AT_ONCE = 256  # that are unembedded together
PROMPTS = 8  # that texts are made answers to: what few begin with is run once
ROWS_AT_ONCE = 16  # of logits that are worked on together: few enough for a processor's caches


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


@dataclass(frozen=True, slots=True)
class Risen:
    """How often each token is among the first, at positions of one and of the other half of the texts (2, vocab); how
    many positions each has (2,); and how often the base says each token at all of them: summed probabilities (vocab,).
    """

    counts: Tensor
    positions: Tensor
    said: Tensor

    def __add__(self, other: Risen) -> Risen:
        return Risen(self.counts + other.counts, self.positions + other.positions, self.said + other.said)

    @property
    def arrays(self) -> dict[str, Tensor]:
        """Itself, as it is kept."""
        return {"counts": self.counts.float(), "positions": self.positions.float(), "said": self.said.float()}

    @property
    def halves(self) -> Tensor:
        """Shares of the positions (2, vocab)."""
        return _often(self.counts, self.positions)

    @property
    def whole(self) -> Tensor:
        """The same of all positions (vocab,)."""
        return _often(self.counts.sum(0), self.positions.sum())


def _often(counts: Tensor, positions: Tensor) -> Tensor:
    """Shares of the positions; 0 for what is among the first hardly anywhere: thousands of tokens are."""
    shares = counts / positions.clamp_min(1)[..., None]
    return shares * (shares >= HARDLY)


@dataclass(frozen=True, slots=True)
class _Deep:
    """Of each of n rows its highest entries: how many (n,), and all in one (m,), their columns and their values."""

    sizes: Tensor
    columns: Tensor  # int32
    values: Tensor

    @classmethod
    def of(cls, scores: Tensor, depth: int) -> _Deep:
        """Of `scores` (n, vocab) all entries that reach a row's floor, `depth` of each row or some more.

        The floor is the depth-th of the maxima of four times as many groups of columns: that takes a fraction of the
        time in which the entries themselves are sorted.
        """
        width = scores.shape[1]
        each = max(1, width // (4 * depth))
        groups = scores[:, : width // each * each].unflatten(1, (each, -1)).amax(1)
        floor = groups.kthvalue(groups.shape[1] - depth + 1).values
        high = scores >= floor[:, None]
        flat = high.flatten().nonzero()[:, 0]
        return cls(high.sum(1).cpu(), (flat % width).int().cpu(), scores.flatten()[flat].cpu())

    def first(self, usual: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
        """Of each row the first `top` columns that are `usual` (vocab,): rows, columns and values (m,) each."""
        fit = usual[self.columns.long()]
        rows = torch.arange(len(self.sizes)).repeat_interleave(self.sizes)[fit]
        sizes = rows.bincount(minlength=len(self.sizes))
        place = torch.arange(len(rows)) - (sizes.cumsum(0) - sizes)[rows]
        wide = torch.full((len(sizes), max(1, int(sizes.max()))), -torch.inf)
        columns = torch.zeros_like(wide, dtype=torch.long)
        wide[rows, place], columns[rows, place] = self.values[fit], self.columns[fit].long()
        values, order = wide.topk(min(top, wide.shape[1]))
        kept = values > -torch.inf
        return kept.nonzero()[:, 0], columns.gather(1, order)[kept], values[kept]


@dataclass
class _Sums:
    """Over all positions, per token: differences of log-probabilities and both probabilities; and each position's
    extremes.
    """

    named: Tensor  # (vocab,) bool: ids that the tokenizer has a token for
    depth: int
    difference: Tensor = field(init=False)  # (vocab,) float64, as the next two
    base: Tensor = field(init=False)
    finetuned: Tensor = field(init=False)
    halves: list[Tensor] = field(default_factory=list)  # of each position, in which half of the texts it is: 0 or 1
    risen: list[_Deep] = field(default_factory=list)
    fallen: list[_Deep] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.depth = min(self.depth, int(self.named.sum()))
        self.difference, self.base, self.finetuned = torch.zeros(3, len(self.named), dtype=torch.float64)

    def add(self, base: Tensor, finetuned: Tensor, half: Tensor) -> None:
        """Logits (n, vocab or more) of both models at n positions."""
        self.halves.append(half)
        vocab, whole = len(self.named), []
        for logits, total in ((base, self.base), (finetuned, self.finetuned)):
            prob = logits.softmax(-1)
            whole.append(logits.amax(-1) - prob.amax(-1).log())  # (n,): what makes logits log-probabilities
            total += prob[:, :vocab].sum(0).cpu()
        shift = whole[1] - whole[0]
        apart = finetuned[:, :vocab] - base[:, :vocab]
        self.difference += (apart.sum(0) - shift.sum()).cpu()
        unnamed = (~self.named).nonzero()[:, 0].to(apart.device)
        for found, sign in ((self.risen, 1), (self.fallen, -1)):
            scores = (sign * (apart - shift[:, None])).index_fill_(1, unnamed, -torch.inf)
            found.append(_Deep.of(scores, self.depth))


def as_plain(corpus: Corpus) -> Corpus:
    """The texts as they are; of chats the answers alone."""
    return Corpus(corpus.name, corpus.texts)


def as_answers(corpus: Corpus, prompts: Sequence[str]) -> Corpus:
    """Each text as the answer to one of the first `prompts`, in turns; chats as they are."""
    asked = [{"role": "user", "content": prompt} for prompt in prompts[:PROMPTS]]
    chats = tuple(
        (asked[i % len(asked)], {"role": "assistant", "content": text}) for i, text in enumerate(corpus.texts)
    )
    return Corpus(corpus.name, corpus.texts, corpus.chats or chats)


def mine(pair: ModelPair, corpus: Corpus, settings: MiningSettings, seed: int = 0) -> tuple[Mined, Risen]:
    """Both models read the first tokens of each text, or of each chat's answer; and what a test against chance needs.

    Raises UsageError if no text has a token to read, BadModel for NaN and Inf.
    """
    read = [window for window in _read(pair, corpus, settings.tokens) if window.first < len(window.ids)]
    if not read:
        raise UsageError(f"corpus {corpus.name!r} has no text with a token to read; give texts of a few words")
    sums: _Sums | None = None
    with torch.inference_mode():
        for base, finetuned, half in _logits(pair, read, settings.tokens):
            common = min(base.shape[-1], finetuned.shape[-1])
            sums = sums or _Sums(_named(pair.tokenizer, common), DEPTH * settings.top)
            sums.add(base, finetuned.to(base.device), half)
        assert sums is not None
        return _mined(pair.tokenizer, sums, len(read), settings, seed)


def _read(pair: ModelPair, corpus: Corpus, tokens: int) -> list[Window]:
    """Of each text the first positions; of a chat those from which its answer's first tokens are said."""
    if not corpus.chats:
        return windows(pair, corpus, tokens)
    chats = rendered_chats(pair, corpus)
    ends = [len(asked) - 1 for asked, _ in chats]
    return [Window([*asked, *answer][: end + tokens], end) for (asked, answer), end in zip(chats, ends, strict=True)]


def _logits(pair: ModelPair, read: list[Window], tokens: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Both models' logits (n, vocab) of the next token and each one's half of the texts (n,), for some positions after
    another.
    """
    last = pair.n_layers - 1
    for batch in batches(read):
        ids, at, there = aligned([read[i] for i in batch], tokens)
        streams = []
        for side in Side:
            whole = pair.residuals(side, ids, [last])[last]
            streams.append(kept(whole, at, there)[there.to(whole.device)].split(POSITIONS_AT_ONCE))  # (n, d_model)
        half = torch.tensor([read[i].text % 2 for i in batch])[:, None].expand_as(there)[there]  # (n,)
        for base, finetuned, halves in zip(*streams, half.split(POSITIONS_AT_ONCE), strict=True):
            found = (pair.unembed(Side.BASE, base), pair.unembed(Side.FINETUNED, finetuned), halves)
            yield from zip(*(part.split(ROWS_AT_ONCE) for part in found), strict=True)


def _named(tokenizer: Any, vocab: int) -> Tensor:
    ids = torch.tensor(sorted(i for i in tokenizer.get_vocab().values() if i < vocab))
    return torch.zeros(vocab, dtype=torch.bool).index_fill_(0, ids, True)


def _mined(tokenizer: Any, sums: _Sums, texts: int, settings: MiningSettings, seed: int) -> tuple[Mined, Risen]:
    positions = sum(len(deep.sizes) for deep in sums.risen)
    base, finetuned, mean = sums.base / positions, sums.finetuned / positions, sums.difference / positions
    usual = sums.named & ((base >= RARE) | (finetuned >= OFTEN))
    where, ids, rise = _first(sums.risen, usual, settings.top)
    half = torch.cat(sums.halves)
    counts = torch.stack([ids[half[where] == i].bincount(minlength=len(usual)) for i in (0, 1)])
    risen = counts.sum(0)
    fallen = _first(sums.fallen, usual, settings.top)[1].bincount(minlength=len(usual))

    def told(order: Tensor, counts: Tensor) -> tuple[MinedToken, ...]:
        found: list[MinedToken] = []
        for i in order.tolist():
            text = tokenizer.decode([i], skip_special_tokens=True)
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
    found = Mined(
        texts=texts,
        positions=positions,
        short=int((where.bincount(minlength=positions) < min(settings.top, int(usual.sum()))).sum()),
        left_out=int((sums.named & ~usual).sum()),
        by_count=told(by_count[risen[by_count] > 0], risen),
        by_mean=told(by_mean, risen),
        suppressed=told(suppressed[fallen[suppressed] > 0], fallen),
        topics=topics_of(tokenizer, where, ids, rise, settings.topics, seed),
    )
    return found, Risen(counts.double(), half.bincount(minlength=2).double(), sums.base)


def _first(found: Sequence[_Deep], usual: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Of each position the first `top` tokens that are `usual`: positions, ids and differences (m,) each."""
    parts, start = [], 0
    for deep in found:
        rows, ids, values = deep.first(usual, top)
        parts.append((rows + start, ids, values))
        start += len(deep.sizes)
    where, ids, values = (torch.cat(part) for part in zip(*parts, strict=True))
    return where, ids, values


def beyond_others(tokenizer: Any, risen: Risen, others: Tensor, cohesion: Cohesion) -> AgainstBroad | None:
    """What rises beyond what `others` (m, vocab) account for, `Risen.whole` of broad finetunes; None if they are few.

    Of shares the roots are compared: counts of any size then vary alike.
    """
    judged = judged_words(tokenizer, risen.said / risen.said.sum())
    own, halves, theirs = (part[..., judged].sqrt() for part in (risen.whole, risen.halves, others))
    return against_broad(tokenizer, judged, own, halves, theirs, cohesion)
