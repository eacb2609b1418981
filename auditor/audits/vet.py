"""One audit of a pair whose truth nobody knows: evidence, agent, report; no grade."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from langchain_core.messages import messages_from_dict

from auditor.agent.hypothesis import observations
from auditor.audits.bench import Bench
from auditor.audits.check import check_sources
from auditor.audits.jobs import JobSpec
from auditor.audits.limits import Meter
from auditor.audits.plan import Plan, limits_of
from auditor.audits.request import content_of, made_with, request
from auditor.audits.run import Sitting
from auditor.audits.runs import checks_of
from auditor.audits.shop import Shop, checkpoints
from auditor.audits.threads import make, material
from auditor.audits.vet_report import document
from auditor.evidence.mapping import Evidence
from auditor.files import write_atomically
from auditor.ledger.claims import Claims
from auditor.ledger.export import mend
from auditor.ledger.ledger import CHECKPOINTS, Ledger
from auditor.llm.spec import OFFLINE
from auditor.readings import together
from auditor.records.results import AuditRecord, Target, Trace, VetReport
from auditor.views.report import to_markdown
from auditor.views.report_page import to_html


@dataclass(frozen=True, slots=True)
class Vetting:
    """What is audited, by whom, and where it is kept. The plan's suite gives the evidence's and sampling's settings."""

    plan: Plan
    target: Target
    agent: str
    budget: int

    def request(self) -> dict[str, Any]:
        """What has to be the same for an interrupted audit to be finished."""
        alone = {"organisms": (), "agents": (self.agent,), "audits": (), "budgets": (self.budget,), "repeats": 1,
                 "graders": ()}  # fmt: skip
        suite = self.plan.suite.model_copy(update=alone)
        asked = request(replace(self.plan, suite=suite))
        return {"model": self.target.finetuned, "base": self.target.base, **asked}

    def job(self) -> JobSpec:
        """The one audit."""
        plan, suite = self.plan, self.plan.suite
        agent = plan.workspace.agents[self.agent]
        return JobSpec(
            name="audit", target=self.target, agent=agent, budget=self.budget, repeat=0,
            limits=limits_of(suite, self.budget), ask=suite.ask, evidence=suite.evidence, llm=plan.settings.llm,
            grader_llm=OFFLINE, protocol=plan.protocol, seed=plan.seed,
            content=content_of(plan.workspace, suite.evidence, plan.settings, agent),
        )  # fmt: skip


def vetted(
    job: Vetting, folder: Path, sitting: Sitting, board: Callable[[Ledger], AbstractContextManager[Any]] = nullcontext
) -> VetReport:
    """The audit with its ledger in `folder`, and its report beside it: one content as Markdown, page and JSON.

    `board`: what shows how it goes. Raises UsageError.
    """
    check_sources(job.plan)
    with Ledger.open(folder) as ledger, board(ledger):
        report = vet(job, ledger, sitting)
        assert report.content is not None
        write_atomically(folder / "report.md", to_markdown(report.content))
        write_atomically(folder / "report.html", to_html(report.content))
        write_atomically(folder / "report.json", report.model_dump_json(indent=1))
    return report


def vet(vetting: Vetting, ledger: Ledger, sitting: Sitting) -> VetReport:
    """Audit the pair, or finish the audit that was cut off. Raises UsageError."""
    plan, job = vetting.plan, vetting.job()
    ledger.begin(vetting.request(), lambda: made_with(plan.settings, plan.workspace), resume=sitting.resume)
    ledger.jobs.enter([(job.id, job.name, job.model_dump_json())])
    mend(ledger)
    record = ledger.jobs.record(job.name)
    meter = Meter(sitting.limit, ledger.calls)
    ledger.events.tell("begun", jobs=1, todo=int(record is None or record.status != "done"))
    with checkpoints(ledger.folder / CHECKPOINTS, ledger) as saver, Claims(ledger.folder) as claims:
        shop = Shop(Bench(plan.workspace, plan.settings, ledger.calls, plan.chats), ledger, saver, meter, claims, 1)
        pair, materials = material([job], shop)
        given = materials[job.agent.name]
        if record is None or record.status != "done":
            shop.tell(job.target.name, "agent")
            ledger.jobs.take(job.name)
            record = make(job, pair, given, shop)
            shop.finish(record, job)
    report = reported(vetting, record, given.evidence, ledger, shop.seconds["evidence"], pair.note)
    return report.model_copy(update={"content": document(report)})


def reported(
    vetting: Vetting, record: AuditRecord, evidence: Evidence, ledger: Ledger, seconds: float, about: str
) -> VetReport:
    """The audit with what was read and seen."""
    agent = vetting.plan.workspace.agents[record.agent]
    messages: Sequence[Any] = messages_from_dict(ledger.transcripts.messages(record.id))
    shown = together(evidence.only(agent.overview))
    tested = tuple(name for name, reading in evidence.only(agent.overview).items() if reading.p is not None)
    return VetReport(
        model=vetting.target.finetuned,
        base=vetting.target.base,
        llm=record.llm,
        agent=record.agent,
        budget=record.budget,
        seed=record.seed,
        hypothesis=record.hypothesis,
        findings=record.findings,
        checks=checks_of(ledger.transcripts.about(record.id), record),
        observations=observations(messages),
        verdicts=evidence.verdicts,
        trace=None if shown is None else Trace(p=shown.p, tested=tested, strongest=shown.strongest),
        sources=record.sources,
        about=about,
        lenses={name: evidence.lenses[name].description for name in evidence},
        sections=tuple(s for name in agent.overview if name in evidence for s in evidence[name].show()),
        notes=tuple(evidence.notes),
        interactions_used=record.interactions_used,
        turns_used=record.turns_used,
        tokens_used=record.tokens,
        cost_usd=record.cost_usd if record.llm != OFFLINE else None,
        seconds={"evidence": seconds, **record.seconds},
        error=record.error,
    )
