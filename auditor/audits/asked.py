"""A suite with what was asked for instead of what it says, and the plan made of it, checked before anything is paid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import yaml

from auditor.config import Settings
from auditor.errors import UsageError
from auditor.records.cards import AdapterVariant, Protocol, Suite
from auditor.workspace import Workspace

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from auditor.audits.plan import Plan


def planned(
    ws: Workspace,
    suite: Suite,
    conf: Settings,
    seed: int = 0,
    protocol: Protocol = Protocol.AUTO,
    variant: AdapterVariant | None = None,
    reference: str | None = None,
    *,
    fetch: bool = True,
    chats: Mapping[str, BaseChatModel] | None = None,
) -> tuple[Plan, tuple[str, ...]]:
    """What is to be made, and the lenses that are read for it. Raises UsageError for what would fail later.

    `chats`: as a Plan has them.
    """
    from auditor.audits.check import check  # slow to import, as all that knows chat models
    from auditor.audits.plan import Plan, agents_of, judged_by
    from auditor.evidence.recipe import held_against, named_by

    plan = Plan(ws, judged_by(ws, suite, conf), conf, seed, protocol, variant, chats or {})
    check(plan, fetch=fetch)
    lenses = named_by(ws, [ws.agents[name] for name in agents_of(suite)])
    if reference is not None:
        evidence = held_against(ws, suite.evidence, lenses, reference)
        plan = replace(plan, suite=plan.suite.model_copy(update={"evidence": evidence}))
    return plan, lenses


def adapted(
    suite: Suite,
    budgets: Sequence[int] | None = None,
    agents: Sequence[str] | None = None,
    organisms: Iterable[str] | None = None,
    repeats: int | None = None,
    graders: Sequence[str] | None = None,
) -> Suite:
    """The suite with what is asked for instead. Raises UsageError for numbers that make no sense."""
    if bad := [b for b in budgets or [] if b < 0]:
        raise UsageError(f"--budget {bad[0]}: a budget is 0 or more model interactions")
    if repeats is not None and repeats < 1:
        raise UsageError(f"--repeats {repeats}: at least 1")
    given = {"budgets": budgets, "agents": agents, "organisms": organisms, "graders": graders}
    update: dict[str, object] = {key: tuple(dict.fromkeys(v)) for key, v in given.items() if v}
    if suite.audits and (budgets or agents):
        kept = tuple(each for each in suite.audits if agents is None or each.agent in agents)
        lost = set(agents or ()) - {each.agent for each in kept}
        if kept and lost and not budgets:
            told = f"suite {suite.name} names pairs, and none with it"
            raise UsageError(f"--agent {sorted(lost)[0]}: {told}; give --budget too, or leave it out")
        update["audits"] = () if budgets else kept
        update.setdefault("agents", tuple(dict.fromkeys(each.agent for each in kept or suite.audits)))
    return suite.model_copy(update=update | ({"repeats": repeats} if repeats else {}))


def set_lenses(ws: Workspace, suite: Suite, told: Iterable[str]) -> Suite:
    """The suite with settings of lenses as LENS.KEY=VALUE, a value as YAML writes it. Raises UsageError."""
    given: dict[str, dict[str, object]] = {}
    for each in told:
        place, equals, value = each.partition("=")
        lens, dot, key = place.partition(".")
        if not equals or not dot or not key:
            raise UsageError(f"--set {each}: give LENS.KEY=VALUE, such as differences.positions=8")
        try:
            given.setdefault(ws.lenses[lens].name, {})[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"--set {each}: {value!r} is no YAML value") from error
    return suite.model_copy(update={"evidence": suite.evidence.over(given)})


def on_corpus(suite: Suite, corpus: str | None) -> Suite:
    """The suite, its differences read on another corpus if one is given."""
    evidence = suite.evidence.model_copy(update={"corpus": corpus or suite.evidence.corpus})
    return suite.model_copy(update={"evidence": evidence})
