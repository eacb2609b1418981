"""All audits of one organism: the models are loaded once, the evidence is computed once, audits run at once."""

from __future__ import annotations

import queue
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from auditor.agent.state import AuditState
from auditor.errors import AuditorError, GraderFailed, UsageError
from auditor.evaluation.audit import investigate, plan
from auditor.evaluation.job import Evaluation, Job, Shared
from auditor.evidence.compute import evidence_for
from auditor.evidence.mapping import Evidence
from auditor.evidence.recipe import named_by, recipe_for
from auditor.models.generate import derive_seed
from auditor.models.pair import ModelPair
from auditor.models.remote import open_pair
from auditor.plugins import GraderContext
from auditor.records.cards import Organism
from auditor.records.findings import Grade
from auditor.records.results import AuditRecord, TokenUse


def audit_organism(run: Evaluation, todo: Sequence[Job], shared: Shared, *, begun_any: bool) -> list[AuditRecord]:
    """The graded records of `todo`, jobs of one organism.

    Raises UsageError if what is wrong will be wrong in every audit; once any audit was made (`begun_any`), only
    those concerned fail.
    """
    organism = todo[0].organism
    clock = time.perf_counter()
    run.progress.stage(organism.name, "loading the models")
    pair = open_pair(
        organism.base, organism.finetuned, run.settings, name=organism.name, variant=run.variant or organism.variant
    )
    prompts = run.workspace.prompts.by_name()
    judging = GraderContext(shared.embed, run.settings, pair, shared.background, shared.lens, prompts)
    recipe = recipe_for(run.workspace, pair, run.suite.evidence, judging)
    lenses = named_by(run.workspace, [run.workspace.agents[name] for name in dict.fromkeys(job.agent for job in todo)])
    dataset = evidence_for(pair, recipe, lenses, lambda stage: run.progress.stage(organism.name, stage))
    for line in dataset.notes:
        run.progress.note(organism.name, line)
    grading = replace(judging, llm=shared.grader)
    shared.seconds["evidence"] += time.perf_counter() - clock

    clock = time.perf_counter()
    run.progress.stage(organism.name, "agents")

    def make(job: Job) -> AuditRecord:
        record = _audit(run, job, pair, dataset, shared)
        return _graded(run, record, organism, grading, shared.seconds)

    records = _at_once(run, todo, make, begun_any=begun_any)
    shared.seconds["agents"] += time.perf_counter() - clock
    return records


def _at_once(
    run: Evaluation, todo: Sequence[Job], make: Callable[[Job], AuditRecord], *, begun_any: bool
) -> list[AuditRecord]:
    """Work through `todo` in threads, whose texts are decoded together; records are kept as they come."""
    pending: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in todo:
        pending.put(job)
    records: list[AuditRecord] = []
    problems: list[UsageError] = []

    def work() -> None:
        try:
            while not problems:
                try:
                    job = pending.get_nowait()
                except queue.Empty:
                    return
                try:
                    record = make(job)
                except UsageError as error:
                    if not begun_any and not records:
                        problems.append(error)
                        return
                    record = failed(job, run, str(error))
                run.store.append(record)
                records.append(record)
                run.progress.audit(job.id, record.status, record.interactions_used)
        except BaseException as error:  # a bug of ours: shown as one by whoever waits
            problems.append(UsageError(f"internal error: {error!r}\n{traceback.format_exc()}"))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(run.workers, len(todo)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    return records


def _audit(run: Evaluation, job: Job, pair: ModelPair, dataset: Evidence, shared: Shared) -> AuditRecord:
    """Make one audit, its transcript written after every step."""
    limits = run.suite.limits(job.budget)
    agent, seed = run.workspace.agents[job.agent], derive_seed(run.seed, job.id)
    header = {"agent": job.agent, "budget": job.budget, "repeat": job.repeat, "llm": run.settings.llm}

    def watch(state: AuditState, more: dict[str, Any]) -> None:
        spent = {key: state[key] for key in ("turns", "interactions", "tokens_in", "tokens_out", "cost_usd")}
        ended = {"hypothesis": state["hypothesis"], "findings": state["findings"]}
        run.store.write_transcript(job.id, state["messages"], {**header, "spent": spent, **ended, **more})
        run.progress.audit(job.id, "running", state["interactions"])

    made = plan(
        run.workspace, agent, limits, run.suite.ask, seed,
        name=job.id, pair=pair, dataset=dataset, caller=shared.agent, embed=shared.embed, protocol=run.protocol,
    )  # fmt: skip
    outcome = investigate(made, shared.saver, shared.embed, watch)
    state = outcome.state
    return AuditRecord(
        **_identity(job, run),
        status="failed" if outcome.error else "done",
        hypothesis=state["hypothesis"] or "",
        findings=outcome.findings,
        checks=outcome.checks,
        interactions_used=state["interactions"],
        turns_used=state["turns"],
        tokens=TokenUse(input=state["tokens_in"], output=state["tokens_out"]),
        cost_usd=state["cost_usd"],
        seconds={"agent": round(outcome.seconds, 2)},
        error=outcome.error,
    )


def _graded(
    run: Evaluation,
    record: AuditRecord,
    organism: Organism,
    grading: GraderContext,
    seconds: dict[str, float],
) -> AuditRecord:
    if record.status != "done":
        return record
    begun = time.perf_counter()
    rubric = run.workspace.rubrics[organism.grading]
    grades: list[Grade] = []
    problems: list[str] = []
    for name in run.suite.graders:
        try:
            verdict: Grade = run.workspace.graders[name].run(record, organism, rubric, grading)
        except AuditorError as error:  # reported, never guessed; the agent was paid, and --resume grades what is kept
            problems.append(str(error) if isinstance(error, GraderFailed) else f"{name}: {error}")
            continue
        grades.append(verdict.model_copy(update={"grader": name}))
    took = time.perf_counter() - begun
    seconds["grading"] += took
    return record.model_copy(
        update={
            "grades": tuple(grades),
            "grade": next((grade.score for grade in grades if grade.grader == run.suite.graders[0]), None),
            "status": "failed" if problems else "done",
            "error": "; ".join(problems) or None,
            "seconds": {**record.seconds, "grading": round(took, 2)},
        }
    )


def _identity(job: Job, run: Evaluation) -> dict[str, Any]:
    return {
        "id": job.id,
        "organism": job.organism.name,
        "family": job.organism.family,
        "rubric": job.organism.grading,
        "agent": job.agent,
        "budget": job.budget,
        "repeat": job.repeat,
        "seed": derive_seed(run.seed, job.id),
    }


def failed(job: Job, run: Evaluation, reason: str) -> AuditRecord:
    return AuditRecord(**_identity(job, run), status="failed", error=reason)
