"""How a run stands, from its events alone."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from auditor.ledger.jobs import Event

RUNNING = "running"


@dataclass(slots=True)
class Walk:
    """An audit that is being made."""

    begun: float
    turns: int = 0
    interactions: int = 0


@dataclass(slots=True)
class Progress:
    """What a person wants to know at a glance. Times are seconds since 1970."""

    jobs: int = 0
    todo: int = 0  # when this sitting began
    begun: float = 0.0
    now: float = 0.0
    target: str = ""
    stage: str = ""
    stage_since: float = 0.0
    running: dict[str, Walk] = field(default_factory=dict)
    ended: Counter[str] = field(default_factory=Counter)  # of this sitting, by state
    grades: dict[tuple[str, int], list[float]] = field(default_factory=lambda: defaultdict(list))  # by agent and budget
    interactions: int = 0
    tokens: int = 0
    cost_usd: float | None = 0.0  # None as soon as one is not known
    limit: str = ""

    def take(self, events: Iterable[Event]) -> None:
        """Go on by what happened."""
        for event in events:
            self.now = event.at
            if event.kind == "begun":  # of a new sitting: what an earlier one ran runs no more
                self.jobs, self.todo, self.begun = event.data["jobs"], event.data["todo"], event.at
                self.running, self.ended = {}, Counter()
            elif event.kind == "stage":
                self.target, self.stage, self.stage_since = event.data["target"], event.data["stage"], event.at
            elif event.kind == "turn" and event.job in self.running:
                walk = self.running[event.job]
                walk.turns, walk.interactions = event.data["turns"], event.data["interactions"]
            elif event.kind == "audit" and event.data["state"] == RUNNING:
                self.running[event.job] = Walk(event.at)
            elif event.kind == "audit":
                self._ended(event)
            elif event.kind == "limit":
                self.limit = event.data["limit"]

    def _ended(self, event: Event) -> None:
        if self.running.pop(event.job, None) is None:
            return  # a grade that came later
        told = event.data
        self.ended[told["state"]] += 1
        self.interactions += told["interactions"]
        self.tokens += sum(told["tokens"].values())
        known = self.cost_usd is not None and told["cost_usd"] is not None
        self.cost_usd = (self.cost_usd or 0.0) + told["cost_usd"] if known else None
        if told["state"] == "done" and told["grades"]:
            self.grades[told["agent"], told["budget"]].append(next(iter(told["grades"].values())))

    @property
    def made(self) -> int:
        """Audits that have ended in this sitting."""
        return self.ended.total()

    def seconds_left(self, now: float) -> float | None:
        """At the pace of this sitting; None before anything has ended."""
        return (now - self.begun) / self.made * (self.todo - self.made) if self.made else None
