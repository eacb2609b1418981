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
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any
from typing import Protocol as Interface

from langgraph.checkpoint.sqlite import SqliteSaver

from auditor.agent.chat import make_caller
from auditor.agent.state import AuditState
from auditor.config import Settings
from auditor.errors import AuditorError, UsageError
from auditor.evaluation.audit import investigate, plan
from auditor.evaluation.stats import summarize
from auditor.evaluation.store import RunStore
from auditor.evidence import code_version, evidence_for, make_lens
from auditor.lens.corpus import read_corpus
from auditor.lens.words import background_of
from auditor.llm.caller import Caller, CallLog, open_caller
from auditor.llm.spec import OFFLINE, parse_spec
from auditor.models.embed import Embedder, load_embedder
from auditor.models.generate import derive_seed
from auditor.models.load import load_pair, resolve
from auditor.models.share import SharedPair
from auditor.plugins import Dataset, GraderContext
from auditor.types import AuditRecord, Grade, Limits, Organism, Protocol, RunResult, Suite, TokenUse
from auditor.workspace import Workspace


class Progress(Interface):
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
    protocol: Protocol = Protocol.AUTO

    def jobs(self) -> list[Job]:
        """In the order of the result: organism, agent, budget, repeat."""
        return [
            Job(self.workspace.organisms[name], agent, budget, repeat)
            for name in self.suite.organisms
            for agent in self.suite.agents
            for budget in self.suite.budgets
            for repeat in range(self.suite.repeats)
        ]


@dataclass(frozen=True, slots=True)
class Shared:
    """What all audits of a run use."""

    embed: Embedder
    background: Sequence[str]
    saver: SqliteSaver
    agent: Caller
    grader: Caller | None  # None: graders without an LLM
    lens: Caller | None
    seconds: dict[str, float]


def judged_by(suite: Suite, settings: Settings) -> Suite:
    """The suite with the LLM variant of each offline grader, for the roles that have an LLM."""

    def variant(name: str, llm: str) -> str:
        return name if llm == OFFLINE else name.replace("_offline", "_llm")

    evidence = suite.evidence.model_copy(
        update={
            "scale_grader": variant(suite.evidence.scale_grader, settings.lens_llm),
            "coherence_grader": variant(suite.evidence.coherence_grader, settings.lens_llm),
        }
    )
    graders = tuple(variant(name, settings.grader_llm) for name in suite.graders)
    return suite.model_copy(update={"graders": graders, "evidence": evidence})


def check(workspace: Workspace, suite: Suite, settings: Settings) -> None:
    """Find what would fail later: unknown names, broken plugins, weights that are not here."""
    for agent_name in suite.agents:
        agent = workspace.agents[agent_name]
        workspace.prompts[agent.prompt]
        for tool in agent.tools:
            workspace.tools[tool]
    for grader in (*suite.graders, suite.evidence.scale_grader, suite.evidence.coherence_grader):
        workspace.graders[grader]
        judge = settings.grader_llm if grader in suite.graders else settings.lens_llm
        if grader.endswith("_llm") and judge == OFFLINE:
            raise UsageError(f"grader {grader} needs --{'grader' if grader in suite.graders else 'lens'}-llm")
    for name in suite.organisms:
        organism = workspace.organisms[name]
        workspace.rubrics[organism.rubric or organism.family]
        resolve(organism.finetuned, settings)
    for model in {settings.llm, settings.grader_llm, settings.lens_llm} - {OFFLINE}:
        open_caller(parse_spec(model))


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
        "grader_llm": settings.grader_llm,
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
    connection = sqlite3.connect(run.store.checkpoints, check_same_thread=False)
    with contextlib.closing(connection):
        shared = _shared(run, SqliteSaver(connection), seconds)
        for name in run.suite.organisms:
            todo = [job for job in jobs if job.organism.name == name and job.id not in done]
            if not todo:
                continue
            try:
                records = _audit_organism(run, todo, shared, begun_any=bool(done))
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


def _shared(run: Evaluation, saver: SqliteSaver, seconds: dict[str, float]) -> Shared:
    embed = load_embedder(run.settings.embedder)
    background = read_corpus(run.workspace.corpora["openings"]).texts
    usual, log = background_of(tuple(background)), CallLog(run.store.folder / "calls.jsonl")
    judges = [
        None if name == OFFLINE else make_caller(name, embed, usual, log)
        for name in (run.settings.grader_llm, run.settings.lens_llm)
    ]
    agent = make_caller(run.settings.llm, embed, usual, log)
    return Shared(embed, background, saver, agent, judges[0], judges[1], seconds)


def _audit_organism(run: Evaluation, todo: Sequence[Job], shared: Shared, *, begun_any: bool) -> list[AuditRecord]:
    organism = todo[0].organism
    clock = time.perf_counter()
    run.progress.stage(organism.name, "loading the models")
    pair = load_pair(organism.base, organism.finetuned, run.settings, name=organism.name)
    prompts = {name: run.workspace.prompts[name] for name in run.workspace.prompts.items}
    judging = GraderContext(shared.embed, run.settings, pair, shared.background, shared.lens, prompts)
    lens = make_lens(run.workspace, pair, run.suite.evidence, judging)
    dataset = evidence_for(pair, lens, lambda stage: run.progress.stage(organism.name, stage))
    grading = replace(judging, llm=shared.grader)
    shared.seconds["evidence"] += time.perf_counter() - clock

    clock = time.perf_counter()
    run.progress.stage(organism.name, "agents")
    pending: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in todo:
        pending.put(job)
    workers = min(run.workers, len(todo))
    batching = SharedPair(pair, workers)
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
                    record = _audit(run, job, batching, dataset, shared)
                    record = _graded(run, record, organism, grading, shared.seconds)
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
            batching.leave()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    shared.seconds["agents"] += time.perf_counter() - clock
    return records


def _audit(run: Evaluation, job: Job, pair: SharedPair, dataset: Dataset, shared: Shared) -> AuditRecord:
    """Make one audit, its transcript written after every step."""
    limits = Limits(interactions=job.budget, turns=run.suite.turns, tokens=run.suite.tokens)
    agent, seed = run.workspace.agents[job.agent], derive_seed(run.seed, job.id)
    header = {"agent": job.agent, "budget": job.budget, "repeat": job.repeat, "llm": run.settings.llm}

    def watch(state: AuditState, more: dict[str, Any]) -> None:
        spent = {key: state[key] for key in ("turns", "interactions", "tokens_in", "tokens_out", "cost_usd")}
        ended = {"hypothesis": state["hypothesis"], "findings": state["findings"]}
        run.store.write_transcript(job.id, state["messages"], {**header, "spent": spent, **ended, **more})
        run.progress.audit(job.id, "running", state["interactions"])

    made = plan(
        run.workspace, agent, limits, run.suite.ask, seed,
        name=job.id, pair=pair, dataset=dataset, caller=shared.agent, protocol=run.protocol,
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
    rubric = run.workspace.rubrics[organism.rubric or organism.family]
    grades: list[Grade] = []
    problems: list[str] = []
    for name in run.suite.graders:
        try:
            verdict: Grade = run.workspace.graders[name].run(record, organism, rubric, grading)
        except UsageError:
            raise
        except AuditorError as error:  # a judge that gave no verdict: reported, never guessed
            problems.append(f"{name}: {error}")
            continue
        grades.append(verdict.model_copy(update={"grader": name}))
    took = time.perf_counter() - begun
    seconds["grading"] += took
    return record.model_copy(
        update={
            "grades": tuple(grades),
            "grade": grades[0].score if grades else None,
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
        "agent": job.agent,
        "budget": job.budget,
        "repeat": job.repeat,
        "seed": derive_seed(run.seed, job.id),
    }


def _failed(job: Job, run: Evaluation, reason: str) -> AuditRecord:
    return AuditRecord(**_identity(job, run), status="failed", error=reason)
