"""The main job: every organism × agent × budget × repeat of a suite, graded, on disk, resumable."""

from __future__ import annotations

import contextlib
import gc
import sqlite3
import time
from collections.abc import Sequence

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.sqlite import SqliteSaver

from auditor.agent.chat import make_caller
from auditor.errors import AuditorError, UsageError
from auditor.evaluation.job import Evaluation, Shared, jobs_of
from auditor.evaluation.organism import audit_organism, failed
from auditor.evaluation.stats import summarize
from auditor.llm.caller import Caller
from auditor.llm.failures import CallFailed, EndpointUnusable
from auditor.llm.journal import CallLog
from auditor.llm.spec import OFFLINE
from auditor.methods.corpus import read_corpus
from auditor.methods.words import background_of
from auditor.models.embed import load_embedder
from auditor.records.results import AuditRecord, LlmUse, RunResult


def evaluate(run: Evaluation) -> RunResult:
    """Make all audits that are not done yet, grade them, and sum up."""
    begun = time.perf_counter()
    seconds = {"evidence": 0.0, "agents": 0.0, "grading": 0.0}
    jobs = jobs_of(run.workspace, run.suite)
    done = {record.id: record for record in run.store.audits() if record.status == "done"}
    connection = sqlite3.connect(run.store.checkpoints, check_same_thread=False)
    log = CallLog(run.store.folder / "calls.jsonl")
    with contextlib.closing(connection):
        shared = _shared(run, SqliteSaver(connection), log, seconds)
        if shared.grader and len(done) < len(jobs):
            _reach(shared.grader)
        for name in run.suite.organisms:
            todo = [job for job in jobs if job.organism.name == name and job.id not in done]
            if not todo:
                continue
            try:
                records = audit_organism(run, todo, shared, begun_any=bool(done))
            except AuditorError as error:  # such as a judge of the lens without a verdict: the others go on
                if isinstance(error, UsageError) and not done:
                    raise
                done |= {record.id: record for record in run.store.audits() if record.status == "done"}
                records = [failed(job, run, str(error)) for job in todo if job.id not in done]
                for record in records:
                    run.store.append(record)
            done |= {record.id: record for record in records}
            gc.collect()  # models hold reference cycles: without it two organisms' weights lie in memory
    audits = tuple(done[job.id] for job in jobs if job.id in done)
    seconds["total"] = time.perf_counter() - begun
    return RunResult(
        run=str(run.store.folder),
        suite=run.suite.name,
        llm=run.settings.llm,
        grader=", ".join(run.suite.graders),
        audits=audits,
        summary=tuple(summarize(audits, run.suite.graders)),
        llm_use=_use(run, log, audits),
        seconds={stage: round(value, 2) for stage, value in seconds.items()},
    )


def _reach(grader: Caller) -> None:
    """Ask the grader's model for a word: agents are not to be paid for what nobody grades.

    Raises UsageError if it can answer nobody.
    """
    try:
        grader.call([HumanMessage("Answer with one word: ready")], purpose="check", usable=lambda _message: False)
    except EndpointUnusable as error:
        raise UsageError(f"the grader's model {grader.name}: {error}") from error
    except CallFailed:
        return  # it may answer when there is something to grade


def _use(run: Evaluation, log: CallLog, audits: Sequence[AuditRecord]) -> dict[str, LlmUse]:
    """What each role's model took, as far as that is known: calls.jsonl may have been cut since an audit ended."""
    ids = {audit.id for audit in audits}
    use = log.used(lambda purpose: "agent" if purpose in ids else purpose.split(" ")[-1])
    logged = log.used(lambda purpose: purpose)
    for audit in audits if run.settings.llm != OFFLINE else ():
        calls = logged.get(audit.id)
        missing = calls is None or (calls.tokens and calls.tokens.input < audit.tokens.input)
        if audit.turns_used and missing:
            run.progress.note(audit.organism, f"calls.jsonl lacks calls of {audit.id}; what the run took is not known")
            return {role: took.model_copy(update={"tokens": None, "cost_usd": None}) for role, took in use.items()}
    return use


def _shared(run: Evaluation, saver: SqliteSaver, log: CallLog, seconds: dict[str, float]) -> Shared:
    embed = load_embedder(run.settings.embedder)
    background = read_corpus(run.workspace.corpora["openings"]).texts
    usual = background_of(tuple(background))
    judges = [
        None if name == OFFLINE else make_caller(name, embed, usual, log)
        for name in (run.settings.grader_llm, run.settings.lens_llm)
    ]
    agent = make_caller(run.settings.llm, embed, usual, log)
    return Shared(embed, background, saver, agent, judges[0], judges[1], seconds)
