"""Grades: a hypothesis that is kept is judged, again if need be, without its agent."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from auditor import telemetry
from auditor.audits.bench import Bench
from auditor.audits.jobs import JobSpec
from auditor.errors import AuditorError, GraderFailed
from auditor.grading import JudgesHypotheses
from auditor.ledger.calls import Calls
from auditor.ledger.database import LedgerBroken
from auditor.ledger.ledger import Ledger
from auditor.models.pair import ModelPair
from auditor.records.results import AuditRecord


def regrade(ledger: Ledger, bench: Bench, graders: Sequence[str], llm: str) -> Iterator[AuditRecord]:
    """Every audit that is done, with the verdicts of `graders` that it lacks; each is kept as soon as it is there.

    Another judge's verdicts stand beside the run's own, under `GRADER@MODEL`. Raises UsageError.
    """
    for spec in ledger.jobs.specs():
        job = JobSpec.model_validate_json(spec)
        record = ledger.jobs.record(job.name)
        if record is None or record.status != "done":
            continue
        beside = {
            name: f"{name}@{llm}" for name in graders if bench.workspace.graders[name].llm and llm != job.grader_llm
        }
        found = graded(job, record, graders, llm, bench, ledger.calls, called=beside)
        if found != record:
            ledger.jobs.finish(found)
        yield found


def graded(
    job: JobSpec,
    record: AuditRecord,
    graders: Sequence[str],
    llm: str,
    bench: Bench,
    calls: Calls,
    pair: ModelPair | None = None,
    called: Mapping[str, str] = MappingProxyType({}),
) -> AuditRecord:
    """`record` with the verdicts of those of `graders` that it lacks; what one of them fails at is told in `error`.

    `called`: under what their verdicts are kept, if not under their own names. The first of the job's graders gives
    the grade. An audit that is not done is left as it is.
    """
    if record.status != "done" or job.card is None:
        return record
    begun = time.perf_counter()
    rubric, context = bench.workspace.rubrics[job.card.grading], bench.grading(pair, llm)
    found = {grade.grader: grade for grade in record.grades}
    problems: list[str] = []
    for name in graders:
        label = called.get(name, name)
        if label in found:
            continue
        try:
            judge: JudgesHypotheses = bench.workspace.graders[name].run
            with telemetry.judgement(label) as span:
                verdict = judge(record, job.card, rubric, context)
                span.set({"gen_ai.evaluation.score.value": verdict.score})
        except LedgerBroken:
            raise
        except AuditorError as error:  # told, never guessed; the agent was paid, and the grade can be had later
            problems.append(str(error) if isinstance(error, GraderFailed) else f"{name}: {error}")
            continue
        judge_llm = llm if bench.workspace.graders[name].llm else ""
        found[label] = verdict.model_copy(update={"grader": label, "judge": judge_llm})
    grades = tuple(found.values())
    took = record.seconds.get("grading", 0.0) + time.perf_counter() - begun
    return record.model_copy(
        update={
            "grades": grades,
            "grade": next((grade.score for grade in grades if grade.grader in job.graders[:1]), None),
            "error": "; ".join(problems) or None,
            "judges": calls.used_by(record.id, judges=True),
            "seconds": {**record.seconds, "grading": round(took, 2)},
        }
    )
