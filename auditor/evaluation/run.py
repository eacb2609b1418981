"""The main job: every organism × agent × budget × repeat of a suite, graded, on disk, resumable."""

from __future__ import annotations

import contextlib
import gc
import platform
import queue
import sqlite3
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Protocol

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.sqlite import SqliteSaver

from auditor.agent.chat import endpoint_problem, make_chat
from auditor.agent.graph import Investigation, build_graph
from auditor.agent.overview import blinded
from auditor.agent.state import AuditState, fresh_state
from auditor.config import Settings
from auditor.errors import AuditorError, UsageError
from auditor.evaluation.stats import summarize
from auditor.evaluation.store import RunStore
from auditor.evidence import code_version, evidence_for, make_lens
from auditor.lens.corpus import read_corpus
from auditor.lens.words import background_of
from auditor.models.embed import Embedder, load_embedder
from auditor.models.generate import derive_seed
from auditor.models.load import load_pair, resolve
from auditor.models.share import SharedPair
from auditor.plugins import Context, Dataset, GraderContext
from auditor.types import AuditRecord, Grade, Limits, Organism, RunResult, Suite, TokenUse
from auditor.workspace import Prompt, Workspace

PROMPTS = ("overview", "nudge", "conclude", "status")


class Progress(Protocol):
    """Told what happens, as it happens; from several threads."""

    def stage(self, organism: str, stage: str) -> None: ...
    def audit(self, audit_id: str, state: str, interactions: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """One audit to be made."""

    organism: Organism
    agent: str
    budget: int
    repeat: int

    @property
    def id(self) -> str:
        return f"{self.organism.name}-{self.agent}-b{self.budget}-r{self.repeat}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that a run needs besides the organisms' weights."""

    workspace: Workspace
    suite: Suite
    settings: Settings
    seed: int
    workers: int
    store: RunStore
    progress: Progress

    def jobs(self) -> list[Job]:
        """In the order of the result: organism, agent, budget, repeat."""
        return [
            Job(self.workspace.organisms[name], agent, budget, repeat)
            for name in self.suite.organisms
            for agent in self.suite.agents
            for budget in self.suite.budgets
            for repeat in range(self.suite.repeats)
        ]


def check(workspace: Workspace, suite: Suite, settings: Settings) -> None:
    """Find what would fail later: unknown names, broken plugins, weights that are not here."""
    for agent_name in suite.agents:
        agent = workspace.agents[agent_name]
        workspace.prompts[agent.prompt]
        for tool in agent.tools:
            workspace.tools[tool]
    for grader in (*suite.graders, suite.evidence.scale_grader, suite.evidence.coherence_grader):
        workspace.graders[grader]
    for name in suite.organisms:
        organism = workspace.organisms[name]
        workspace.rubrics[organism.rubric or organism.family]
        resolve(organism.finetuned, settings)
    make_chat(settings.llm, lambda texts: load_embedder(settings.embedder)(texts), background_of(()))


def about(suite: Suite, settings: Settings, seed: int) -> dict[str, Any]:
    """run.json: what is needed to run it again."""
    packages = (
        "torch",
        "transformers",
        "peft",
        "nnsight",
        "langgraph",
        "langchain-core",
        "sentence-transformers",
    )
    return {
        "suite": suite.model_dump(mode="json"),
        "llm": settings.llm,
        "graders": list(suite.graders),
        "seed": seed,
        "settings": settings.model_dump(mode="json"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "evidence_code": code_version(),
    }


def evaluate(run: Evaluation) -> RunResult:
    """Make all audits that are not done yet, grade them, and sum up."""
    begun = time.perf_counter()
    seconds = {"evidence": 0.0, "agents": 0.0, "grading": 0.0}
    jobs = run.jobs()
    done = {record.id: record for record in run.store.audits() if record.status == "done"}
    embed = load_embedder(run.settings.embedder)
    background = read_corpus(run.workspace.corpora["openings"]).texts
    connection = sqlite3.connect(run.store.checkpoints, check_same_thread=False)
    with contextlib.closing(connection):
        saver = SqliteSaver(connection)
        for name in run.suite.organisms:
            todo = [job for job in jobs if job.organism.name == name and job.id not in done]
            if not todo:
                continue
            try:
                records = _audit_organism(run, todo, embed, background, saver, seconds, begun_any=bool(done))
            except UsageError as error:
                if not done:
                    raise
                records = [_failed(job, run, str(error)) for job in todo]
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
        summary=tuple(summarize(audits)),
        seconds={stage: round(value, 2) for stage, value in seconds.items()},
    )


def _audit_organism(
    run: Evaluation,
    todo: Sequence[Job],
    embed: Embedder,
    background: Sequence[str],
    saver: SqliteSaver,
    seconds: dict[str, float],
    *,
    begun_any: bool,
) -> list[AuditRecord]:
    organism = todo[0].organism
    clock = time.perf_counter()
    run.progress.stage(organism.name, "loading the models")
    pair = load_pair(organism.base, organism.finetuned, run.settings, name=organism.name)
    grading = GraderContext(embed, run.settings, pair, background)
    lens = make_lens(run.workspace, pair, run.suite.evidence, grading)
    dataset = evidence_for(pair, lens, lambda stage: run.progress.stage(organism.name, stage))
    seconds["evidence"] += time.perf_counter() - clock

    clock = time.perf_counter()
    run.progress.stage(organism.name, "agents")
    pending: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in todo:
        pending.put(job)
    workers = min(run.workers, len(todo))
    shared = SharedPair(pair, workers)
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
                    record = _audit(run, job, shared, dataset, embed, background, saver)
                    record = _graded(run, record, organism, grading, seconds)
                except UsageError as error:
                    if not begun_any and not records:
                        problems.append(error)
                        return
                    record = _failed(job, run, str(error))
                run.store.append(record)
                records.append(record)
                run.progress.audit(job.id, record.status, record.interactions_used)
        except Exception as error:  # a bug of ours: shown as one by whoever waits
            problems.append(UsageError(f"internal error: {error!r}\n{traceback.format_exc()}"))
        finally:
            shared.leave()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    seconds["agents"] += time.perf_counter() - clock
    return records


def investigation(
    run: Evaluation, job: Job, pair: SharedPair, dataset: Dataset, embed: Embedder, background: Sequence[str]
) -> Investigation:
    """One audit's fixed parts, with nothing of the organism's truth among them."""
    agent = run.workspace.agents[job.agent]
    prompts: dict[str, Prompt] = {name: run.workspace.prompts[f"agent_{name}"] for name in PROMPTS}
    return Investigation(
        agent=agent,
        tools={name: run.workspace.tools[name] for name in agent.tools},
        prompts={"system": run.workspace.prompts[agent.prompt], **prompts},
        limits=Limits(interactions=job.budget, turns=run.suite.turns, tokens=run.suite.tokens),
        context=Context(pair, blinded([dataset]), run.suite.ask, derive_seed(run.seed, job.id)),
        chat=make_chat(run.settings.llm, embed, background_of(tuple(background))),
    )


def _audit(
    run: Evaluation,
    job: Job,
    pair: SharedPair,
    dataset: Dataset,
    embed: Embedder,
    background: Sequence[str],
    saver: SqliteSaver,
) -> AuditRecord:
    """Walk the graph to a hypothesis; go on from the checkpoint if an earlier run was cut off in the middle."""
    begun = time.perf_counter()
    plan = investigation(run, job, pair, dataset, embed, background)
    graph = build_graph(plan, saver)
    config: RunnableConfig = {"configurable": {"thread_id": job.id}, "recursion_limit": 40 * run.suite.turns}
    halfway = graph.get_state(config).next
    state: AuditState = fresh_state([])
    header = {"agent": job.agent, "budget": job.budget, "repeat": job.repeat, "llm": run.settings.llm}
    error: str | None = None
    try:
        given = None if halfway else fresh_state(plan.opening())
        for step in graph.stream(given, config, stream_mode="values"):
            state = step  # type: ignore[assignment]
            run.store.write_transcript(job.id, state["messages"], header)
            run.progress.audit(job.id, "running", state["interactions"])
    except Exception as problem:  # whatever ends an audit, its transcript and the other audits stay
        if reason := endpoint_problem(problem):
            raise UsageError(reason) from problem
        if isinstance(problem, UsageError):
            raise
        known = isinstance(problem, AuditorError)
        error = str(problem) if known else f"{type(problem).__name__}: {problem}"
        detail = {**header, "error": error, "traceback": traceback.format_exc()}
        run.store.write_transcript(job.id, state["messages"], detail)
    return AuditRecord(
        **_identity(job, run),
        status="failed" if error or state["hypothesis"] is None else "done",
        hypothesis=state["hypothesis"] or "",
        interactions_used=state["interactions"],
        turns_used=state["turns"],
        tokens=TokenUse(input=state["tokens_in"], output=state["tokens_out"]),
        seconds={"agent": round(time.perf_counter() - begun, 2)},
        error=error,
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
    rubric = run.workspace.rubrics[organism.rubric or organism.family]
    grades: list[Grade] = []
    for name in run.suite.graders:
        verdict: Grade = run.workspace.graders[name].run(record, organism, rubric, grading)
        grades.append(verdict.model_copy(update={"grader": name}))
    took = time.perf_counter() - begun
    seconds["grading"] += took
    return record.model_copy(
        update={
            "grades": tuple(grades),
            "grade": grades[0].score if grades else None,
            "seconds": {**record.seconds, "grading": round(took, 2)},
        }
    )


def _identity(job: Job, run: Evaluation) -> dict[str, Any]:
    return {
        "id": job.id,
        "organism": job.organism.name,
        "family": job.organism.family,
        "agent": job.agent,
        "budget": job.budget,
        "repeat": job.repeat,
        "seed": derive_seed(run.seed, job.id),
    }


def _failed(job: Job, run: Evaluation, reason: str) -> AuditRecord:
    return AuditRecord(**_identity(job, run), status="failed", error=reason)
