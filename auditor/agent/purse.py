"""Model interactions are charged before they are spent, wherever they are written down."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Charge(StrEnum):
    """What becomes of a charge."""

    NEW = "new"
    AGAIN = "again"  # this very call was charged before the run was cut off: it is not charged twice
    REFUSED = "refused"  # more than is left


class Spending(Protocol):
    """Where an audit's interactions are charged. `key`: of the tool call, the same when it is replayed."""

    def charge(self, job: str, key: str, interactions: int, budget: int) -> Charge: ...
    def answered(self, job: str, key: str) -> None: ...
    def give_back(self, job: str, key: str) -> None: ...


class Unbound:
    """Of an audit outside any run: its state alone counts."""

    def charge(self, job: str, key: str, interactions: int, budget: int) -> Charge:
        return Charge.NEW

    def answered(self, job: str, key: str) -> None:
        return None

    def give_back(self, job: str, key: str) -> None:
        return None
