"""Sentences that come back in texts of unlike beginnings: groups of those that say the same."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from auditor.methods.recurring import Grouped
from auditor.models.embed import Embedder
from auditor.records.record import Record

ALIKE = 0.6  # cosine from which two sentences say the same
SHORTEST = 4  # words of a sentence
_END = re.compile(r"(?<=[.!?])\s+|\n+")

Flags = NDArray[np.bool_]


class RecurringSentence(Record):
    """A sentence that others are like; how many beginnings have one, and how many of what they are compared with.

    `members`: numbers of the texts that have one: the beginning's, and there the text's.
    """

    text: str
    ours: int
    theirs: int
    members: tuple[tuple[int, int], ...]


def recurring_sentences(ours: Grouped, theirs: Grouped, embed: Embedder, most: int) -> tuple[RecurringSentence, ...]:
    """Groups of sentences that are like one of them, first those that most beginnings have beyond the others' share."""
    mine, other = list(_sentences(ours)), list(_sentences(theirs))
    if not mine:
        return ()
    vectors, others = embed([text for _, _, text in mine]), embed([text for _, _, text in other])
    near, place = vectors @ vectors.T >= ALIKE, _places(mine, len(ours))
    expected = _reached(vectors @ others.T >= ALIKE, _places(other, len(theirs)))
    left, found = np.ones(len(mine), bool), list[RecurringSentence]()
    while len(found) < most:
        reached = _reached(near & left, place)
        gain = np.where(left & (reached > 1), reached / len(ours) - expected / max(1, len(theirs)), 0.0)
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        group = near[best] & left
        members = tuple(dict.fromkeys(mine[i][:2] for i in np.flatnonzero(group)))
        found.append(
            RecurringSentence(text=mine[best][2], ours=int(reached[best]), theirs=int(expected[best]), members=members)
        )
        left &= ~group
    return tuple(found)


def _sentences(texts: Grouped) -> Iterator[tuple[int, int, str]]:
    """Each sentence with the numbers of its beginning and, there, of its text."""
    for opening, said in enumerate(texts):
        for number, text in enumerate(said):
            for sentence in _END.split(text):
                if len(sentence.split()) >= SHORTEST:
                    yield opening, number, sentence.strip()


def _places(sentences: Sequence[tuple[int, int, str]], count: int) -> Flags:
    """Which beginning each sentence is of: (n, beginnings)."""
    place = np.zeros((len(sentences), count), bool)
    place[np.arange(len(sentences)), [opening for opening, *_ in sentences]] = True
    return place


def _reached(near: Flags, place: Flags) -> NDArray[np.int64]:
    """How many beginnings have a sentence that is near each of ours: (ours, n), (n, beginnings) -> (ours,)."""
    reached: NDArray[np.int64] = (near.astype(np.float32) @ place.astype(np.float32) > 0).sum(1)
    return reached
