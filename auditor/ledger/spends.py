"""Model interactions: charged before they are spent, and what the models answered to them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Any

from auditor.agent.purse import Charge
from auditor.ledger.database import Database, dumped


class Spends:
    """Charges of a run, in its ledger: whoever charges, and however often, a budget is never overspent."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def charge(self, job: str, key: str, interactions: int, budget: int) -> Charge:
        """Take `interactions` of an audit's budget for the call with that key, before it is made."""
        with self._db.writing() as db:
            known = db.execute("SELECT state FROM spends WHERE job = ? AND key = ?", (job, key)).fetchone()
            if known is not None and known[0] != "given back":
                again = "UPDATE spends SET times = times + 1 WHERE job = ? AND key = ? AND state = 'in flight'"
                db.execute(again, (job, key))
                return Charge.AGAIN
            (spent,) = db.execute(
                "SELECT COALESCE(SUM(interactions), 0) FROM spends WHERE job = ? AND state != 'given back'", (job,)
            ).fetchone()
            if spent + interactions > budget:
                return Charge.REFUSED
            row = (job, key, time.time(), interactions, "in flight", 1)
            db.execute("INSERT OR REPLACE INTO spends VALUES (?, ?, ?, ?, ?, ?)", row)
        return Charge.NEW

    def answered(self, job: str, key: str) -> None:
        """The call came to an observation."""
        self._set(job, key, "answered")

    def give_back(self, job: str, key: str) -> None:
        """The call was refused, and no model was asked."""
        self._set(job, key, "given back")

    def _set(self, job: str, key: str, state: str) -> None:
        with self._db.writing() as db:
            db.execute("UPDATE spends SET state = ? WHERE job = ? AND key = ?", (state, job, key))

    def spent(self, job: str) -> int:
        """Interactions of an audit's budget that are gone, those in flight too."""
        ((found,),) = self._db.rows(
            "SELECT COALESCE(SUM(interactions), 0) FROM spends WHERE job = ? AND state != 'given back'", job
        )
        return int(found)

    def begun_again(self, job: str) -> int:
        """Interactions that were in flight when a run was cut off: spent once, asked for twice."""
        ((found,),) = self._db.rows(
            "SELECT COALESCE(SUM(interactions), 0) FROM spends WHERE job = ? AND times > 1", job
        )
        return int(found)


class ModelAnswers:
    """What the audited models answered, in a run's ledger: a resumed audit asks nothing again."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def find(self, job: str, requests: Sequence[Any]) -> list[Any] | None:
        """The answers to exactly these requests (plain data, seeds included)."""
        found = self._db.rows("SELECT answers FROM model_calls WHERE job = ? AND key = ?", job, _key(requests))
        return list(json.loads(found[0][0])) if found else None

    def add(self, job: str, requests: Sequence[Any], answers: Sequence[Any]) -> None:
        with self._db.writing() as db:
            row = (job, _key(requests), time.time(), dumped(requests), dumped(answers))
            db.execute("INSERT OR IGNORE INTO model_calls VALUES (?, ?, ?, ?, ?)", row)


def _key(requests: Sequence[Any]) -> str:
    return hashlib.sha256(dumped(requests).encode()).hexdigest()
