"""`auditor audit`: a pair of one's own, whose truth nobody knows."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from auditor.audits.asked import on_corpus, set_lenses
from auditor.cli.judges import RolesOption, announce_agent, roles_of
from auditor.cli.pairs import (
    AdapterRank,
    AdapterScale,
    BaseOption,
    ModelArgument,
    NoBaseFlag,
    ReferenceOption,
    asked_pair,
    variant_of,
)
from auditor.cli.shared import (
    CorpusOption,
    JsonFlag,
    LensLlmOption,
    LlmOption,
    MaxCost,
    MaxInputTokens,
    MaxTime,
    MaxTokens,
    OutOption,
    ProtocolOption,
    ResumeFlag,
    SeedOption,
    ServerOption,
    SetOption,
    UnpricedFlag,
    announce,
    announce_spans,
    limits_of,
    out,
    print_json,
    run_folder,
    settings,
    workspace,
)
from auditor.records.cards import Protocol
from auditor.records.results import VetReport

if TYPE_CHECKING:
    from auditor.audits.run import Sitting
    from auditor.audits.vet import Vetting


def audit(
    model: ModelArgument,
    base: BaseOption = None,
    no_base: NoBaseFlag = False,
    agent: Annotated[
        str | None, typer.Option(help="Who audits; default: adl, or no-base where no base is known.")
    ] = None,
    budget: Annotated[int, typer.Option(min=0, help="Model interactions that it may spend.")] = 5,
    llm: LlmOption = None,
    lens_llm: LensLlmOption = None,
    llm_role: RolesOption = None,
    protocol: ProtocolOption = Protocol.AUTO,
    suite: Annotated[str, typer.Option(help="Suite whose evidence and sampling settings are used.")] = "quickstart",
    corpus: CorpusOption = None,
    sets: SetOption = None,
    out_dir: OutOption = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The audit's name; default: model and time.")] = None,
    resume: ResumeFlag = False,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    max_input_tokens: MaxInputTokens = None,
    max_time: MaxTime = None,
    allow_unpriced: UnpricedFlag = False,
    seed: SeedOption = 0,
    adapter_scale: AdapterScale = None,
    adapter_rank: AdapterRank = None,
    reference: ReferenceOption = None,
    server: ServerOption = None,
    json: JsonFlag = False,
) -> int:
    """Find out what MODEL was finetuned for: evidence, audit, and a report with its claims; no grade."""
    short = re.sub(r"[^\w.-]+", "-", model.strip("/")).strip("-.")[-40:]
    folder = run_folder(out_dir, name, f"audit-{short}-{datetime.now():%Y%m%d-%H%M%S}", resume=resume)
    ws, conf = workspace(), settings(llm=llm, lens_llm=lens_llm, llm_roles=roles_of(llm_role), server=server)
    announce_agent(conf, graded=False)
    announce_spans()
    target = asked_pair(
        conf, model, base, no_base=no_base, variant=variant_of(adapter_scale, adapter_rank, conf.server),
        needing={"--reference base": True if reference == "base" else None},
    )  # fmt: skip
    most, _ = limits_of(conf, max_cost, max_tokens, max_time, allowed=allow_unpriced)

    from auditor.audits.check import demand_read
    from auditor.audits.plan import Plan, judged_by
    from auditor.audits.run import Sitting
    from auditor.audits.vet import Vetting
    from auditor.evidence.recipe import held_against, named_by
    from auditor.views.report import to_markdown

    auditing = ws.agents[agent or ("no-base" if no_base else "adl")]
    chosen = judged_by(ws, ws.suites[suite], conf)
    chosen = set_lenses(ws, on_corpus(chosen, corpus), sets or ()).model_copy(
        update={"tokens": max_input_tokens or chosen.tokens}
    )
    if reference is not None:
        evidence = held_against(ws, chosen.evidence, named_by(ws, [auditing]), reference)
        chosen = chosen.model_copy(update={"evidence": evidence})
    if not conf.server:
        target = target.model_copy(update={"name": "audited"})  # which is all that is told of it
    job = Vetting(Plan(ws, chosen, conf, seed, protocol, target.variant), target, auditing.name, budget)
    demand_read(job.plan, named_by(ws, [auditing]), sets or ())
    report = reported(job, folder, Sitting(workers=1, limit=most, resume=resume))
    if json:
        print_json(report)
    else:
        assert report.content is not None
        from rich.markdown import Markdown  # slow to import, with all languages that it colours

        out.print(Markdown(to_markdown(report.content)))
        out.print(f"\n{escape(str(folder / 'report.html'))}", style="dim", highlight=False)
    return 1 if report.error else 0


def reported(job: Vetting, folder: Path, sitting: Sitting) -> VetReport:
    """The audit and its report, its progress on stderr."""
    from auditor.audits.vet import vetted
    from auditor.cli.progress import Board
    from auditor.evidence.recipe import named_by

    plan = job.plan
    announce(plan.suite.evidence, named_by(plan.workspace, [plan.workspace.agents[job.agent]]), plan.settings)
    return vetted(job, folder, sitting, Board)
