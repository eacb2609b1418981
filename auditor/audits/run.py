"""The main job: every audit of a suite that is not done yet, graded, in the ledger, resumable."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from auditor.audits.audit import failed
from auditor.audits.bench import Bench
from auditor.audits.calibrate import trust_of
from auditor.audits.check import reach
from auditor.audits.grade import graded
from auditor.audits.jobs import JobSpec, jobs_of
from auditor.audits.limits import Meter, Most
from auditor.audits.plan import Plan
from auditor.audits.request import made_with, request
from auditor.audits.shop import Shop, checkpoints
from auditor.audits.threads import audit_pair
from auditor.comparison.compare import compare
from auditor.comparison.scores import Run
from auditor.errors import AuditorError, InternalError, UsageError
from auditor.ledger.claims import Claim, Claims
from auditor.ledger.database import LedgerBroken
from auditor.ledger.export import mend, write_jobs, write_run
from auditor.ledger.jobs import ENDED
from auditor.ledger.ledger import CHECKPOINTS, Ledger
from auditor.records.results import RunResult

WAIT = 0.5  # seconds between two looks at what other workers do


@dataclass(frozen=True, slots=True)
class Sitting:
    """How a run is worked at this time; none of it changes what it gives."""

    workers: int = 8
    limit: Most = field(default_factory=Most)
    resume: bool = False
    retry_failed: bool = False


Engine = Callable[[Sequence[JobSpec], Shop], None]
"""Makes jobs, of any pairs; what it cannot begin stays in the queue."""


def begin(plan: Plan, ledger: Ledger, sitting: Sitting) -> list[JobSpec]:
    """Enter the run's jobs; those that were cut off go back into the queue. Returns all of them.

    Raises UsageError if the ledger holds another run.
    """
    ledger.begin(request(plan), lambda: made_with(plan.settings, plan.workspace), resume=sitting.resume)
    jobs = jobs_of(plan)
    if len(ledger.jobs.states()) != len(jobs):
        ledger.jobs.enter((job.id, job.name, job.model_dump_json()) for job in jobs)
    ledger.jobs.requeue(("running", "failed") if sitting.retry_failed else ("running",))
    write_run(ledger)
    return jobs


def evaluate(plan: Plan, ledger: Ledger, sitting: Sitting, engine: Engine | None = None) -> RunResult:
    """Make all audits that are not done yet, grade them, and sum up. Raises UsageError."""
    begun = time.perf_counter()
    jobs = begin(plan, ledger, sitting)
    bench = Bench(plan.workspace, plan.settings, ledger.calls, plan.chats)
    meter = Meter(sitting.limit, ledger.calls)
    with checkpoints(ledger.folder / CHECKPOINTS, ledger) as saver, Claims(ledger.folder) as claims:
        shop = Shop(bench, ledger, saver, meter, claims, sitting.workers)
        if sitting.resume:
            shop.absorb()
            mend(ledger)
        states = ledger.jobs.states()
        todo = [job for job in jobs if states[job.name] not in ENDED]
        _open(todo, shop)
        problems = ledger.jobs.done_with_problems()
        lacking = [job for job in jobs if job.name in problems]
        ledger.events.tell("begun", jobs=len(jobs), todo=len(todo))
        if todo or lacking:
            reach(bench)
        _grade(lacking, shop)
        _until_all_ended(todo, shop, engine or by_pairs)
    if gone := meter.gone():
        ledger.events.tell("limit", limit=gone)
    return result(plan, ledger, {**shop.seconds, "total": time.perf_counter() - begun})


def _open(jobs: Sequence[JobSpec], shop: Shop) -> None:
    """Let workers of any machine see what is left, and what is known of it."""
    shop.claims.reopen(job.name for job in jobs)
    write_jobs(shop.ledger)
    shop.ledger.lend(shop.claims.lent)


def _until_all_ended(jobs: Sequence[JobSpec], shop: Shop, engine: Engine) -> None:
    """Work at what nobody works at, and wait for what others work at."""
    while not shop.meter.gone():
        states = shop.ledger.jobs.states()
        left = [job for job in jobs if states[job.name] not in ENDED]
        free = [job for job in left if shop.claims.whose(job.name) is not Claim.OTHERS]
        if not left:
            break
        if free:
            engine(free, shop)
        else:
            time.sleep(WAIT)
        shop.absorb()
    if all(state in ENDED for state in shop.ledger.jobs.states().values()):
        shop.claims.close()


def by_pairs(jobs: Sequence[JobSpec], shop: Shop) -> None:
    """The engine of one process: one pair in memory after another. Where several processes share a run, each takes a
    pair that nobody works at as long as there is one, then helps where most is left to do.
    """
    groups = [list(group) for _, group in groupby(jobs, key=lambda job: job.target)]
    refused, taken = set[str](), list[list[JobSpec]]()
    while groups and not shop.meter.gone():
        begun = shop.claims.begun() | refused
        unbegun = {id(group): sum(job.name not in begun for job in group) for group in groups}
        taken += [group for group in groups if not unbegun[id(group)]]
        groups = [group for group in groups if unbegun[id(group)]]
        group = next((each for each in groups if unbegun[id(each)] == len(each)), None)
        if group is not None and shop.claims.take(group[0].name) is not Claim.OURS:  # for all to see, before it loads
            refused.add(group[0].name)  # somebody else was quicker, or the run is over
        elif group := group or max(groups, key=lambda each: unbegun[id(each)], default=None):
            groups.remove(group)
            _audit_free(group, shop)
    for group in taken:  # whose worker may be no more
        _audit_free(group, shop)


def _audit_free(jobs: Sequence[JobSpec], shop: Shop) -> None:
    if free := [job for job in jobs if shop.claims.whose(job.name) is not Claim.OTHERS]:
        _audit(free, shop)


def _audit(jobs: Sequence[JobSpec], shop: Shop) -> None:
    """The audits of one pair. What keeps all of them from being made fails them alone, once others were made."""
    if shop.meter.gone():
        return
    made = [state for state in shop.ledger.jobs.states().values() if state in ENDED and state != "failed"]
    try:
        audit_pair(jobs, shop, begun_any=bool(made))
    except (LedgerBroken, InternalError):
        raise
    except AuditorError as error:  # such as a judge of the lens without a verdict: the others go on
        states = shop.ledger.jobs.states()
        if isinstance(error, UsageError) and "done" not in states.values():
            raise
        for job in jobs:
            if states.get(job.name) == "running" or (states.get(job.name) not in ENDED and shop.begin(job)):
                shop.finish(failed(job, str(error)), job)
    finally:
        gc.collect()  # models hold reference cycles: without it two organisms' weights lie in memory


def _grade(jobs: Sequence[JobSpec], shop: Shop) -> None:
    """Finish what an earlier sitting could not grade."""
    for job in jobs:
        record = shop.ledger.jobs.record(job.name)
        assert record is not None
        record = graded(job, record, job.graders, job.grader_llm, shop.bench, shop.ledger.calls)
        shop.ledger.jobs.finish(record)
    if jobs:
        mend(shop.ledger)


def result(plan: Plan, ledger: Ledger, seconds: dict[str, float]) -> RunResult:
    """What the ledger holds, summed up."""
    audits, states = tuple(ledger.jobs.records()), Counter(ledger.jobs.states().values())
    run = Run(ledger.folder.name, ledger.request() or {}, audits, states)
    comparison = compare([run], plan.suite.graders, trust_of(plan.workspace))
    return RunResult(
        run=str(ledger.folder),
        suite=plan.suite.name,
        llm=plan.settings.llm,
        grader=", ".join(plan.suite.graders),
        audits=audits,
        headline=comparison.headline,
        certainty=comparison.certainty,
        summary=comparison.standings,
        differences=comparison.differences,
        llm_use=ledger.calls.used(),
        seconds={stage: round(value, 2) for stage, value in seconds.items()},
        open=sum(count for state, count in states.items() if state not in ENDED),
        trust=comparison.judges,
    )
