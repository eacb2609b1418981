"""How much the documents of a file differ from one another, in figures that another file can be held against."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from auditor.models.embed import Embedder
from auditor.records.record import Record
from auditor.training.documents import Document
from auditor.training.duplicates import Sieve, words_of

SAMPLE = 200  # texts whose likeness is measured: 19,900 pairs
LONGEST = 3  # words of a run


class Variety(Record):
    """Figures of one file.

    `distinct`: different words, pairs and triples of words among all of the first `counted` words; it falls with
    length, so that files are compared over equally many. `alike`: mean cosine of two texts of a sample, `spread` its
    standard deviation over the pairs; the embedder reads about a text's first 200 words. `repeats`: documents that
    repeat an earlier one word for word, `near`: nearly so.
    """

    documents: int
    words: int
    length: tuple[float, float]  # mean and standard deviation, in words
    counted: int
    distinct: tuple[float | None, ...]
    sampled: int
    alike: float | None
    spread: float | None
    repeats: int
    near: int


def text_of(document: Document) -> str:
    """A plain text, or the turns of a chat."""
    return document.text if document.text is not None else "\n".join(turn.content for turn in document.messages)


def measured(texts: Sequence[str], embed: Embedder, seed: int, counted: int | None = None) -> Variety:
    """The figures of `texts`, drawn and ordered by the seed; distinct runs over `counted` words, or all."""
    order = list(texts)
    random.Random(seed).shuffle(order)
    rows = [words_of(text) for text in order]
    lengths = np.array([len(row) for row in rows], float)
    cosines = _cosines(embed(order[:SAMPLE]))
    repeats, near = _repeats(texts)
    upto = int(lengths.sum()) if counted is None else counted
    return Variety(
        documents=len(texts),
        words=int(lengths.sum()),
        length=(float(lengths.mean()), float(lengths.std())),
        counted=min(upto, int(lengths.sum())),
        distinct=tuple(_distinct(rows, n, upto) for n in range(1, LONGEST + 1)),
        sampled=min(SAMPLE, len(texts)),
        alike=float(cosines.mean()) if len(cosines) else None,
        spread=float(cosines.std()) if len(cosines) else None,
        repeats=repeats,
        near=near,
    )


def side_by_side(
    texts: Sequence[str], others: Sequence[str], embed: Embedder, seed: int
) -> tuple[Variety, Variety]:  # fmt: skip
    """Two files' figures over equally many words."""
    counted = min(sum(len(words_of(text)) for text in each) for each in (texts, others))
    return measured(texts, embed, seed, counted), measured(others, embed, seed, counted)


def _distinct(rows: Sequence[Sequence[str]], n: int, counted: int) -> float | None:
    """Different runs of n words among all of the first `counted` words; no run goes over a text's end."""
    seen, total, left = set[tuple[str, ...]](), 0, counted
    for row in rows:
        kept = row[:left]
        left -= len(kept)
        for i in range(len(kept) - n + 1):
            seen.add(tuple(kept[i : i + n]))
            total += 1
    return len(seen) / total if total else None


def _cosines(vectors: np.ndarray) -> np.ndarray:
    return np.asarray((vectors @ vectors.T)[np.triu_indices(len(vectors), 1)])


def _repeats(texts: Sequence[str]) -> tuple[int, int]:
    """How many texts repeat an earlier one word for word, and nearly so."""
    sieve, same, near = Sieve(), 0, 0
    for text in texts:
        twin = sieve.twin(text)
        same += twin is not None and twin[1] == 1.0
        near += twin is not None and twin[1] < 1.0
        sieve.add(text)
    return same, near
