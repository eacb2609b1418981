"""Where a run's audits are made: by the process that keeps the run's ledger, or by a worker beside it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.sqlite import SqliteSaver

from auditor.audits.audit import Desk
from auditor.audits.bench import Bench
from auditor.audits.jobs import JobSpec
from auditor.audits.limits import Meter
from auditor.errors import BadFile
from auditor.ledger.claims import Claim, Claims
from auditor.ledger.database import LedgerBroken, is_damage
from auditor.ledger.export import write_audit
from auditor.ledger.jobs import ENDED
from auditor.ledger.ledger import Ledger
from auditor.records.results import AuditRecord
from auditor.runtime import heed_interrupts


@dataclass(frozen=True, slots=True)
class Shop:
    """What the audits of one process share. `head`: it keeps the run's own ledger, and takes over what others did.
    `closed`: ledgers of workers that are no more, which were taken over.
    """

    bench: Bench
    ledger: Ledger
    saver: BaseCheckpointSaver[str]
    meter: Meter
    claims: Claims
    workers: int
    head: bool = True
    seconds: dict[str, float] = field(default_factory=lambda: {"evidence": 0.0, "agents": 0.0, "grading": 0.0})
    closed: set[Path] = field(default_factory=set)

    @property
    def desk(self) -> Desk:
        return Desk(self.ledger, self.saver, self.meter.allowance)

    def tell(self, target: str, stage: str) -> None:
        """A stage of a pair begins."""
        heed_interrupts()
        self.ledger.events.tell("stage", target=target, stage=stage)

    def begin(self, job: JobSpec) -> bool:
        """Claim a job; False if another worker makes it, or made it."""
        claim = self.claims.take(job.name)
        if claim is not Claim.OTHERS and not self.head:
            self.ledger.jobs.enter([(job.id, job.name, job.model_dump_json())])
        if claim is Claim.ORPHANED:
            self._take_over(job)  # what its worker paid for is not paid for again, and it may be done
            if self.ledger.jobs.state(job.name) in ENDED:
                return False
            claim = self.claims.take(job.name, orphans=True)
        if claim is not Claim.OURS:
            return False
        self.ledger.jobs.take(job.name)
        return True

    def finish(self, record: AuditRecord, job: JobSpec) -> None:
        """An audit has ended: first the ledger knows, then its copies are made, and its checkpoints go."""
        if self.head:
            self.claims.done(job.name)
        self.ledger.jobs.finish(record)
        if self.head:
            self._copy(record)
        if record.status == "done":
            with suppress(sqlite3.Error):  # they are in nobody's way
                self.saver.delete_thread(job.id)

    def _copy(self, record: AuditRecord) -> None:
        try:
            write_audit(self.ledger, record)
        except BadFile as error:  # the run's disk: the other audits could not be kept either
            raise LedgerBroken(error.path, error.reason) from error

    def _take_over(self, job: JobSpec) -> None:
        if self.head:
            self.absorb()
        else:  # a worker's own ledger need not hold what others did of other jobs
            for path in self.claims.ledgers():
                self.ledger.absorb(path, job.name)

    def absorb(self) -> None:
        """Take over what workers beside this one have done so far."""
        for path in self.claims.ledgers():
            if path in self.closed:
                continue
            closed = not self.claims.is_alive(path.stem)
            for name in self.ledger.absorb(path):
                record = self.ledger.jobs.record(name)
                assert record is not None
                self.claims.done(name)
                self._copy(record)
            if closed:
                self.closed.add(path)


@contextmanager
def checkpoints(path: Path, ledger: Ledger) -> Iterator[SqliteSaver]:
    """Where the graphs of a process keep their states. Damaged ones are dropped: audits that were cut off are walked
    anew, with the answers that the ledger keeps.
    """
    if path.exists() and not _is_sound(path):
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        ledger.events.tell("note", target=path.name, text="damaged; audits that were cut off begin anew, calls kept")
    with closing(sqlite3.connect(path, check_same_thread=False)) as connection:
        yield SqliteSaver(connection)


def _is_sound(database: Path) -> bool:
    try:
        with closing(sqlite3.connect(database)) as connection:
            return bool(connection.execute("PRAGMA quick_check").fetchone() == ("ok",))
    except sqlite3.Error as error:
        if is_damage(error):
            return False
        raise LedgerBroken(database, f"cannot be opened ({error}); once it can be, nothing is lost") from error
