"""Time that is simulated: what cluster.py's workers walk through, and wait for."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from heapq import heappop, heappush
from itertools import count
from typing import Any

Walk = Generator[Any, None, None]


class Clock:
    """Walks are generators: each gives the seconds that it takes, or the queue or latch that it waits for."""

    def __init__(self) -> None:
        self.now, self._heap, self._n = 0.0, list[tuple[float, int, Walk]](), count()

    def go(self, walk: Walk, after: float = 0.0) -> None:
        heappush(self._heap, (self.now + after, next(self._n), walk))

    def run(self) -> float:
        while self._heap:
            self.now, _, walk = heappop(self._heap)
            for waits in walk:
                if isinstance(waits, float):
                    self.go(walk, waits)
                    break
                if waits.enter(walk):
                    continue
                break
        return self.now


class Queue:
    """Room for `limit` at once, in order. `busy`: seconds of room that were taken."""

    def __init__(self, clock: Clock, limit: int | None = 1) -> None:
        self.clock, self.limit, self.inside, self.waiting = clock, limit, 0, deque[Walk]()
        self.busy, self._since = 0.0, 0.0

    def _count(self) -> None:
        self.busy += self.inside * (self.clock.now - self._since)
        self._since = self.clock.now

    def enter(self, walk: Walk) -> bool:
        if self.limit is not None and self.inside >= self.limit:
            self.waiting.append(walk)
            return False
        self._count()
        self.inside += 1
        return True

    def leave(self) -> None:
        if self.waiting:  # whose place is taken at once
            self.clock.go(self.waiting.popleft())
        else:
            self._count()
            self.inside -= 1

    def hold(self, seconds: float) -> Walk:
        if seconds:
            yield self
            yield seconds
            self.leave()


class Latch:
    """Opens when `count` walks have ended."""

    def __init__(self, clock: Clock, count: int) -> None:
        self.clock, self.count, self._walk = clock, count, None

    def enter(self, walk: Walk) -> bool:
        self._walk = walk
        return self.count == 0

    def ended(self) -> None:
        self.count -= 1
        if not self.count and self._walk is not None:
            self.clock.go(self._walk)


class Gpu:
    """One GPU. `busy`: seconds in which it had anything to do."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.rows, self.busy, self._since = clock, 0, 0.0, 0.0

    def work(self, seconds: float, crowding: float = 0.0) -> Walk:
        if not seconds:
            return
        if not self.rows:
            self._since = self.clock.now
        self.rows += 1
        yield seconds * (1 + crowding * (self.rows - 1))
        self.rows -= 1
        if not self.rows:
            self.busy += self.clock.now - self._since
