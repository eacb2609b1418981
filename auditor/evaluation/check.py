"""What would fail later, found before anything is paid for."""

from __future__ import annotations

from collections import Counter

from auditor.config import Settings
from auditor.criteria import check_rubric
from auditor.errors import BadFile, UnknownName, UsageError
from auditor.evaluation.job import jobs_of
from auditor.evidence.recipe import judges_of, named_by
from auditor.grading import GraderKind
from auditor.llm.caller import open_caller
from auditor.llm.spec import OFFLINE, parse_spec
from auditor.models.weights import resolve
from auditor.records.cards import Suite
from auditor.workspace import Workspace


def check(workspace: Workspace, suite: Suite, settings: Settings) -> None:
    """Raises UsageError for unknown names, broken plugins and rubrics, graders of the wrong kind, missing weights."""
    for what in ("organisms", "agents", "budgets"):
        if not getattr(suite, what):
            raise UsageError(f"suite {suite.name} names no {what}; name one at least")
    for agent_name in suite.agents:
        agent = workspace.agents[agent_name]
        workspace.prompts[agent.prompt]
        for tool in agent.tools:
            workspace.tools[tool]
    for name in suite.graders:
        _check_grader(workspace, name, "hypothesis", settings.grader_llm, "--grader-llm")
    check_judges(workspace, suite, settings)
    for name in suite.organisms:
        organism = workspace.organisms[name]
        try:
            rubric = workspace.rubrics[organism.grading]
        except UnknownName as error:
            raise UsageError(f"organism {name}: {error}; give its card a `rubric:` that there is") from error
        try:
            check_rubric(rubric)
        except UsageError as error:
            raise BadFile(workspace.rubrics.items[rubric.name].path, str(error)) from error
        for fits in (workspace.graders[grader].fits for grader in suite.graders):
            if fits is not None:
                fits(organism, rubric)
        if settings.server is None:
            resolve(organism.finetuned, settings)
    for name, count in Counter(job.id for job in jobs_of(workspace, suite)).items():
        if count > 1:
            raise UsageError(f"two audits would be called {name}; rename an organism or an agent")
    for model in {settings.llm, settings.grader_llm, settings.lens_llm} - {OFFLINE}:
        open_caller(parse_spec(model))


def check_judges(workspace: Workspace, suite: Suite, settings: Settings) -> None:
    """Raises UsageError for a lens that an agent names and that there is not, and for graders of the wrong kind."""
    for name in named_by(workspace, [workspace.agents[agent] for agent in suite.agents]):
        workspace.lenses[name]
    for judge, kind in judges_of(workspace, suite, settings).items():
        _check_grader(workspace, judge, kind, settings.lens_llm, "--lens-llm")


def _check_grader(workspace: Workspace, name: str, kind: GraderKind, llm: str, option: str) -> None:
    found = workspace.graders[name].kind
    if found != kind:
        raise UsageError(f"grader {name} is of kind {found}; one of kind {kind} is needed there")
    if name.endswith("_llm") and llm == OFFLINE:
        raise UsageError(f"grader {name} needs {option}")
