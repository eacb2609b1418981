"""Texts that are there twice, word for word or nearly so."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

NEAR = 0.3
"""Jaccard index of two texts' runs of three words from which they count as nearly the same: nearly half of each stands
in the other. No two of the 600 hand-written documents of cake_bake come over 0.15."""

RUN = 3  # words
_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)?")


def words_of(text: str) -> list[str]:
    """Words and numbers in small letters, without what stands between them."""
    return _WORD.findall(text.lower().replace("’", "'"))


def plain(text: str) -> str:
    """A text's words, or itself if it has none: what stays the same in other letters and with other marks."""
    return " ".join(words_of(text)) or text


def runs_of(text: str, length: int = RUN) -> frozenset[int]:
    """The runs of so many words, hashed; of a shorter text all its words as one."""
    words = words_of(text)
    runs = (words[i : i + length] for i in range(max(1, len(words) - length + 1)))
    return frozenset(int.from_bytes(blake2b(" ".join(run).encode(), digest_size=8).digest()) for run in runs)


class Sieve:
    """Texts so far; a further one is held against all of them."""

    def __init__(self, near: float = NEAR) -> None:
        self._near = near
        self._texts: dict[str, int] = {}
        self._runs: list[frozenset[int]] = []
        self._holding: dict[int, list[int]] = defaultdict(list)  # a run: texts that have it among their first

    def twin(self, text: str) -> tuple[int, float] | None:
        """The place of an earlier text that this one repeats, and how like they are (1 for the same words)."""
        same = self._texts.get(" ".join(words_of(text)))
        if same is not None:
            return same, 1.0
        runs = runs_of(text)
        others = {other for run in self._first(runs) for other in self._holding.get(run, ())}
        alike = ((len(runs & self._runs[other]) / len(runs | self._runs[other]), -other) for other in others)
        share, place = max(alike, default=(0.0, 0))
        return (-place, share) if share >= self._near else None

    def add(self, text: str) -> None:
        """Remember a text, whatever it repeats."""
        place, runs = len(self._runs), runs_of(text)
        self._texts.setdefault(" ".join(words_of(text)), place)
        self._runs.append(runs)
        for run in self._first(runs):
            self._holding[run].append(place)

    def _first(self, runs: Iterable[int]) -> Sequence[int]:
        """Of two sets that are so much alike, these parts share a run, whatever order is kept (prefix filtering)."""
        ordered = sorted(runs)
        return ordered[: len(ordered) - math.ceil(self._near * len(ordered)) + 1]
