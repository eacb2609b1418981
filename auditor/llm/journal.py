"""What a call of a chat model is, written down: a resumed run pays for no finished one again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Asked:
    """A request to a chat model, and for whom it is made. `key`: a hash of all of it."""

    key: str
    job: str  # an audit's name; nothing outside any
    role: str  # agent, a grader's name, check
    repeat: int
    model: str
    options: dict[str, Any]
    hosted: bool
    sent: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of an attempt: a reply, or an error. Tokens and cost are None where the endpoint does not tell."""

    reply: dict[str, Any] | None
    error: str = ""
    attempts: int = 1
    seconds: float = 0.0
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None
    cost_usd: float | None = None


class Journal(Protocol):
    """Where calls are written down, so that a resumed run repeats no finished one.

    `demand` raises if nothing can be written down any more: a call that is begun then would be paid for in vain.
    """

    def demand(self) -> None: ...
    def find(self, key: str) -> Answered | None: ...
    def add(self, asked: Asked, answered: Answered, *, usable: bool) -> None: ...


class NoJournal:
    """Keeps nothing: for calls outside a run."""

    def demand(self) -> None:
        return None

    def find(self, key: str) -> None:
        return None

    def add(self, asked: Asked, answered: Answered, *, usable: bool) -> None:
        return None
