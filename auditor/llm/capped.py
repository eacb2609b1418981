"""A journal that lets no call be made which the limit of cost may not hold; answers that are known are free."""

from __future__ import annotations

import threading

from auditor.errors import AuditorError
from auditor.ledger.calls import Calls
from auditor.llm.journal import Answered, Asked

LONGEST_WAIT = 300.0  # seconds for a call in flight


class Spent(AuditorError):
    """The limit of cost leaves no room for another call."""


class Capped:
    """The journal of `calls`, under a limit in USD. `guess`: what a call costs, before one was paid.

    What is in flight counts as much as the dearest call so far; where that leaves no room, its end is waited for.
    """

    def __init__(self, calls: Calls, most: float, guess: float) -> None:
        self._calls, self._most, self._dearest = calls, most, guess
        self._open = set[str]()
        self._ended = threading.Condition()

    def demand(self) -> None:
        self._calls.demand()

    def find(self, key: str) -> Answered | None:
        """A known answer. Raises Spent where there is none and no room for it."""
        known = self._calls.find(key)
        if known is not None:
            return known
        with self._ended:
            self._ended.wait_for(lambda: self._room() or not self._open, LONGEST_WAIT)
            if not self._room():
                spent = self._calls.spent()[1]
                raise Spent(f"the limit of {self._most:g} USD leaves no room ({spent:.4f} are spent)")
            self._open.add(key)
        return None

    def add(self, asked: Asked, answered: Answered, *, usable: bool) -> None:
        try:
            self._calls.add(asked, answered, usable=usable)
        finally:
            with self._ended:
                self._open.discard(asked.key)
                self._dearest = max(self._dearest, answered.cost_usd or 0.0)
                self._ended.notify_all()

    def _room(self) -> bool:
        return self._calls.spent()[1] + (len(self._open) + 1) * self._dearest <= self._most
