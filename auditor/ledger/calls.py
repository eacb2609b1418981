"""Calls of chat models: every attempt is a row, and a finished, usable answer is never paid for again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from auditor.ledger.database import Database, dumped, keep_texts, new_uid
from auditor.llm.journal import Answered, Asked
from auditor.records.results import LlmUse, TokenUse

_TOLD = ("at", "job", "role", "repeat", "attempt", "model", "hosted", "usable", "error", "tokens_in", "tokens_out",
         "tokens_cached", "cost_usd", "seconds")  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelUse:
    """What one audit's answered calls of a hosted model took in one role. `untold`: those whose tokens are unknown."""

    role: str
    model: str
    tokens_in: int
    tokens_out: int
    tokens_cached: int
    cost_usd: float | None
    untold: int


class Calls:
    """The Journal of a run, in its ledger."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def demand(self) -> None:
        """Raises LedgerBroken if the ledger could not be written before: what is paid for now would be lost, too."""
        if self._db.broken:
            raise self._db.broken

    def find(self, key: str) -> Answered | None:
        """The first usable answer to that request."""
        found = self._db.rows(
            "SELECT reply, error, attempt, seconds, tokens_in, tokens_out, tokens_cached, cost_usd FROM calls "
            "WHERE key = ? AND usable ORDER BY at LIMIT 1", key,
        )  # fmt: skip
        return Answered(json.loads(found[0][0]), *found[0][1:]) if found else None

    def add(self, asked: Asked, answered: Answered, *, usable: bool) -> None:
        """Write down an attempt. One that is not `usable` is paid for, and never taken for an answer."""
        with self._db.writing() as db:
            sent = keep_texts(db, asked.sent)
            tools = keep_texts(db, [list(asked.tools)])[0] if asked.tools else ""
            row = (
                new_uid(), time.time(), asked.job, asked.role, asked.key, asked.repeat, answered.attempts, asked.model,
                dumped(asked.options), asked.hosted, usable, dumped(sent), tools,
                None if answered.reply is None else dumped(answered.reply), answered.error, answered.tokens_in,
                answered.tokens_out, answered.tokens_cached, answered.cost_usd, answered.seconds,
            )  # fmt: skip
            db.execute(f"INSERT INTO calls VALUES ({', '.join('?' * len(row))})", row)

    def used(self) -> dict[str, LlmUse]:
        """The sums of all answered calls of hosted models, by role."""
        return {role: _use(*sums) for role, *sums in self._sums("GROUP BY role ORDER BY role", "role")}

    def used_by(self, job: str, *, judges: bool = False) -> LlmUse:
        """Those of one audit: its agent's, or its judges'."""
        where = f"AND job = ? AND role {'!=' if judges else '='} 'agent'"
        ((_, *sums),) = self._sums(where, "''", job)
        return _use(*sums)

    def by_model(self) -> dict[str, list[ModelUse]]:
        """Those of each audit, by role and model."""
        query = (
            "SELECT job, role, model, TOTAL(tokens_in), TOTAL(tokens_out), TOTAL(tokens_cached), SUM(cost_usd), "
            "COUNT(*) - COUNT(tokens_in + tokens_out) FROM calls WHERE hosted AND reply IS NOT NULL "
            "GROUP BY job, role, model ORDER BY job, role, model"
        )
        found: dict[str, list[ModelUse]] = {}
        for job, role, model, read, wrote, cached, cost, untold in self._db.rows(query):
            use = ModelUse(role, model, int(read), int(wrote), int(cached), cost, untold)
            found.setdefault(job, []).append(use)
        return found

    def spent(self) -> tuple[int, float]:
        """Of the whole run so far: tokens and USD, as far as they were told."""
        ((_, _, _, tokens_in, _, tokens_out, _, cost),) = self._sums("", "''")
        return (tokens_in or 0) + (tokens_out or 0), cost or 0.0

    def all(self, job: str | None = None) -> Iterator[dict[str, Any]]:
        """Every attempt in order, with the messages that were sent; of one job, if it is given."""
        where, given = ("", ()) if job is None else ("WHERE job = ?", (job,))
        for (uid,) in self._db.rows(f"SELECT uid FROM calls {where} ORDER BY at", *given):
            query = f"SELECT {', '.join(_TOLD)}, options, sent, tools, reply FROM calls WHERE uid = ?"
            ((*told, options, sent, tools, reply),) = self._db.rows(query, uid)
            yield {
                **dict(zip(_TOLD, told, strict=True)),
                "options": json.loads(options),
                "sent": [self._text(sha256) for sha256 in json.loads(sent)],
                "tools": self._text(tools) if tools else [],
                "reply": json.loads(reply) if reply else None,
            }

    def _text(self, sha256: str) -> Any:
        ((body,),) = self._db.rows("SELECT body FROM texts WHERE sha256 = ?", sha256)
        return json.loads(body)

    def _sums(self, more: str, what: str, *given: Any) -> list[tuple[Any, ...]]:
        return self._db.rows(
            f"SELECT {what}, COUNT(*), COUNT(tokens_in), SUM(tokens_in), COUNT(tokens_out), SUM(tokens_out), "
            f"COUNT(cost_usd), SUM(cost_usd) FROM calls WHERE hosted AND reply IS NOT NULL {more}", *given,
        )  # fmt: skip


def _use(
    calls: int, told_in: int, tokens_in: int, told_out: int, tokens_out: int, priced: int, cost: float | None
) -> LlmUse:
    told = told_in == told_out == calls
    return LlmUse(
        calls=calls,
        tokens=TokenUse(input=tokens_in or 0, output=tokens_out or 0) if told else None,
        cost_usd=(cost or 0.0) if priced == calls else None,
    )
