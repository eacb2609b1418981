"""What would fail later, found before anything is paid for."""

from __future__ import annotations

from collections.abc import Iterable

from langchain_core.messages import HumanMessage

from auditor.audits.bench import Bench
from auditor.audits.plan import Plan, agents_of
from auditor.criteria import check_rubric
from auditor.errors import BadFile, UnknownName, UsageError
from auditor.evidence.recipe import closure, corpus_named, judges_of, named_by
from auditor.grading import GraderKind
from auditor.llm.caller import Caller, open_caller
from auditor.llm.failures import CallFailed, EndpointUnusable
from auditor.llm.spec import OFFLINE, parse_spec
from auditor.models.pull import on_hub
from auditor.models.weights import resolve
from auditor.records.cards import Agent, EvidenceSettings, Organism
from auditor.workspace import Workspace


def check(plan: Plan, *, fetch: bool = True) -> None:
    """Raises UsageError for unknown names, broken plugins and rubrics, graders of the wrong kind, missing weights.

    `fetch`: finetunes that are on the hub, too; without it they are taken to be there.
    """
    ws, suite, settings = plan.workspace, plan.suite, plan.settings
    for what, there in (("organisms", suite.organisms), ("agents", agents_of(suite)),
                        ("budgets", suite.audits or suite.budgets)):  # fmt: skip
        if not there:
            raise UsageError(f"suite {suite.name} names no {what}; name one at least")
    agents = [ws.agents[name] for name in agents_of(suite)]
    for agent in agents:
        ws.prompts[agent.prompt]
        for tool in agent.tools:
            ws.tools[tool]
    check_graders(ws, suite.graders, settings.grader_llm)
    check_judges(plan, agents, suite.evidence)
    for organism in plan.organisms():
        _check_organism(ws, organism, suite.graders)
        if settings.server is None and (fetch or not on_hub([organism.finetuned])):
            resolve(organism.finetuned, settings, to_load=False)  # another machine's, perhaps
    check_sources(plan)


def check_sources(plan: Plan) -> None:
    """Raises UsageError for a chat model or a corpus that cannot be had as it is named."""
    for model in plan.settings.llms - plan.chats.keys():
        open_caller(parse_spec(model))
    corpus_named(plan.workspace, plan.suite.evidence.corpus)


def demand_read(plan: Plan, lenses: Iterable[str], told: Iterable[str]) -> None:
    """Raises UsageError for a setting (LENS.KEY=VALUE) of a lens that none of `lenses` is, or needs."""
    ws = plan.workspace
    read = {lens.name for lens in closure(ws.lenses.by_name(), lenses)[0]}
    for each in told:
        if (name := ws.lenses[each.partition(".")[0]].name) not in read:
            raise UsageError(f"--set {each}: nobody reads {name} here; read are {', '.join(sorted(read))}")


def _check_organism(ws: Workspace, organism: Organism, graders: Iterable[str]) -> None:
    try:
        rubric = ws.rubrics[organism.grading]
    except UnknownName as error:
        raise UsageError(f"organism {organism.name}: {error}; give its card a `rubric:` that there is") from error
    try:
        check_rubric(rubric)
    except UsageError as error:
        raise BadFile(ws.rubrics.items[rubric.name].path, str(error)) from error
    for fits in (ws.graders[grader].fits for grader in graders):
        if fits is not None:
            fits(organism, rubric)


def check_graders(ws: Workspace, names: Iterable[str], llm: str) -> None:
    """Raises UsageError for graders of hypotheses that there are not, or that need an LLM where `llm` is none."""
    for name in names:
        _check_grader(ws, name, "hypothesis", llm, "--grader-llm")


def check_judges(plan: Plan, agents: Iterable[Agent], settings: EvidenceSettings) -> None:
    """Raises UsageError for a lens that an agent names and that there is not, and for graders of the wrong kind."""
    ws, agents = plan.workspace, list(agents)
    for name in named_by(ws, agents):
        ws.lenses[name]
    for judge, kind in judges_of(ws, agents, settings, plan.settings).items():
        _check_grader(ws, judge, kind, plan.settings.lens_judge(kind), "--lens-llm")


def _check_grader(ws: Workspace, name: str, kind: GraderKind, llm: str, option: str) -> None:
    grader = ws.graders[name]
    if grader.kind != kind:
        raise UsageError(f"grader {name} is of kind {grader.kind}; one of kind {kind} is needed there")
    if grader.llm and llm == OFFLINE:
        raise UsageError(f"grader {name} needs {option}")


def reach(bench: Bench) -> None:
    """Ask the graders' model for a word: agents are not to be paid for what nobody grades.

    Raises UsageError if it can answer nobody.
    """
    judge: Caller | None = bench.judge(bench.settings.grader_llm)
    if judge is None:
        return
    try:
        judge.call([HumanMessage("Answer with one word: ready")], role="check", usable=lambda _message: False)
    except EndpointUnusable as error:
        raise UsageError(f"the grader's model {judge.name}: {error}") from error
    except CallFailed:
        return  # it may answer when there is something to grade
