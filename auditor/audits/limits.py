"""Limits of a run: tokens, cost and time, and what a model costs that nobody has priced."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass

from auditor.agent.state import Allowance
from auditor.config import Settings
from auditor.errors import UsageError
from auditor.ledger.calls import Calls
from auditor.llm.spec import parse_spec

AUDIT = "/audit"


@dataclass(frozen=True, slots=True)
class Most:
    """What something may take; None: without end."""

    tokens: int | None = None
    cost_usd: float | None = None
    seconds: float | None = None


def read_limits(cost: Iterable[str], tokens: Iterable[str], seconds: Iterable[str]) -> tuple[Most, Most]:
    """Of the run, and of each audit, as `--max-cost`, `--max-tokens` and `--max-time` say them: N, or N/audit.

    Raises UsageError.
    """
    given = {"--max-cost": cost, "--max-tokens": tokens, "--max-time": seconds}
    found: dict[tuple[str, bool], float] = {}
    for option, values in given.items():
        for value in values:
            number, each = value.removesuffix(AUDIT), value.endswith(AUDIT)
            if not re.fullmatch(r"\d+(\.\d+)?", number) or float(number) <= 0:
                raise UsageError(f"{option} {value}: give a number over 0, for the run, or N{AUDIT} for each audit")
            if (option, each) in found:
                raise UsageError(f"{option} is given twice for {'each audit' if each else 'the run'}")
            found[option, each] = float(number)

    def most(each: bool) -> Most:
        tokens_of = found.get(("--max-tokens", each))
        return Most(
            None if tokens_of is None else int(tokens_of), found.get(("--max-cost", each)),
            found.get(("--max-time", each)),
        )  # fmt: skip

    return most(False), most(True)


def demand_prices(settings: Settings, *limits: Most, allowed: bool) -> None:
    """Raises UsageError if there is a limit of cost and a model whose cost nobody can tell."""
    if allowed or all(limit.cost_usd is None for limit in limits):
        return
    for model in sorted(settings.llms):
        spec = parse_spec(model)
        if spec.provider != "openrouter" and (spec.price_in is None or spec.price_out is None):  # who tells its own
            raise UsageError(
                f"--max-cost: no price is known for {spec.name}; write {spec.name}?price_in=…&price_out=… "
                "(USD per million tokens), or give --allow-unpriced"
            )


class Meter:
    """What a run has taken, and what it may still take; asked by all of its audits."""

    def __init__(self, most: Most, calls: Calls) -> None:
        """Raises UsageError if nothing is left to begin with."""
        self._most, self._calls, self._begun = most, calls, time.monotonic()
        self._lock, self._sharing = threading.Lock(), 0
        if gone := self.gone():
            tokens, cost = calls.spent()
            raise UsageError(
                f"the limit of {gone} is spent: the run has taken {tokens:,} tokens and {cost:.4f} USD; raise it"
            )

    def __enter__(self) -> None:
        """An audit takes of it from here."""
        with self._lock:
            self._sharing += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._sharing -= 1

    def allowance(self) -> Allowance:
        """What is left."""
        most = self._most
        counted = most.tokens is not None or most.cost_usd is not None
        tokens, cost = self._calls.spent() if counted else (0, 0.0)
        return Allowance(
            None if most.tokens is None else most.tokens - tokens,
            None if most.cost_usd is None else most.cost_usd - cost,
            None if most.seconds is None else most.seconds - (time.monotonic() - self._begun),
            max(1, self._sharing),
        )

    def gone(self) -> str:
        """The limit of which nothing is left; empty if there is some of all."""
        left = self.allowance()
        for name, room in (("tokens", left.tokens), ("cost", left.cost_usd), ("time", left.seconds)):
            if room is not None and room <= 0:
                return name
        return ""
