"""The audits of one pair: the models are loaded once, the evidence is read once, audits run at once in threads."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable, Sequence
from time import perf_counter

from auditor import telemetry
from auditor.audits.audit import Material, audit, failed, material_for
from auditor.audits.grade import graded
from auditor.audits.jobs import JobSpec
from auditor.audits.shop import Shop
from auditor.errors import InternalError, UsageError
from auditor.evidence.recipe import named_by
from auditor.ledger.database import LedgerBroken
from auditor.models.pair import ModelPair
from auditor.records.results import AuditRecord


def audit_pair(jobs: Sequence[JobSpec], shop: Shop, *, begun_any: bool) -> None:
    """Make `jobs`, all of one pair; each is in the ledger as soon as it has ended.

    Raises UsageError if what is wrong will be wrong in every audit; once any audit was made (`begun_any`), only those
    concerned fail. Jobs that a limit keeps from being begun stay in the queue.
    """
    pair, materials = material(jobs, shop)
    clock = perf_counter()
    shop.tell(jobs[0].target.name, "agents")
    _at_once(jobs, shop, lambda job: make(job, pair, materials[job.agent.name], shop), begun_any=begun_any)
    shop.seconds["agents"] += perf_counter() - clock


def material(jobs: Sequence[JobSpec], shop: Shop) -> tuple[ModelPair, dict[str, Material]]:
    """What `jobs`, all of one pair, need: its models, and by agent's name what the agent's lenses read."""
    clock, bench, first = perf_counter(), shop.bench, jobs[0]
    shop.tell(first.target.name, "loading the models")
    pair = bench.pair(first.target)
    agents = {job.agent.name: job.agent for job in jobs}
    lenses = named_by(bench.workspace, agents.values())
    found = bench.evidence(pair, first.evidence, lenses, lambda stage: shop.tell(first.target.name, stage))
    for line in (*([pair.note] if pair.note else []), *found.notes):
        shop.ledger.events.tell("note", target=first.target.name, text=line)
    shop.seconds["evidence"] += perf_counter() - clock
    return pair, {name: material_for(agent, bench, found) for name, agent in agents.items()}


def make(job: JobSpec, pair: ModelPair, material: Material, shop: Shop) -> AuditRecord:
    """One audit, graded. Raises UsageError for what will be wrong in every audit."""
    with telemetry.audit(job) as span:
        with shop.meter:
            record = audit(job, shop.bench, pair, material, shop.desk)
        clock = perf_counter()
        record = graded(job, record, job.graders, job.grader_llm, shop.bench, shop.ledger.calls, pair)
        shop.seconds["grading"] += perf_counter() - clock
        telemetry.came_to(span, record)
    return record


def _at_once(jobs: Sequence[JobSpec], shop: Shop, run: Callable[[JobSpec], AuditRecord], *, begun_any: bool) -> None:
    """Work through `jobs` in threads, whose texts are decoded together."""
    pending: queue.SimpleQueue[JobSpec] = queue.SimpleQueue()
    for job in jobs:
        pending.put(job)
    ended, problems = list[str](), list[UsageError]()

    def work() -> None:
        while not problems and not shop.meter.gone():
            try:
                job = pending.get_nowait()
            except queue.Empty:
                return
            if not shop.begin(job):
                continue
            try:
                record = run(job)
            except LedgerBroken:
                raise
            except UsageError as error:
                if not begun_any and not ended:
                    raise
                record = failed(job, str(error))
            shop.finish(record, job)
            ended.append(job.name)

    def guarded() -> None:
        try:
            work()
        except UsageError as error:
            problems.append(error)
        except BaseException as error:  # a bug of ours: shown as one by whoever waits
            problems.append(InternalError(f"internal error: {error!r}\n{traceback.format_exc()}"))

    threads = [threading.Thread(target=guarded, daemon=True) for _ in range(min(shop.workers, len(jobs)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
