"""`auditor evaluate`: the main job."""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from auditor.audits.asked import adapted, on_corpus, planned, set_lenses
from auditor.cli.judges import RolesOption, announce_agent, roles_of
from auditor.cli.pairs import AdapterRank, AdapterScale, ReferenceOption, variant_of
from auditor.cli.result import tell
from auditor.cli.shared import (
    CorpusOption,
    GraderLlmOption,
    GraderOption,
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
    err,
    limits_of,
    out,
    print_json,
    run_folder,
    settings,
    user_root,
    workspace,
)
from auditor.errors import UsageError
from auditor.records.cards import Protocol, Suite
from auditor.records.results import AuditRecord, RunResult

if TYPE_CHECKING:
    from auditor.audits.limits import Most
    from auditor.audits.plan import Plan
    from auditor.audits.run import Engine, Sitting

WORKERS = 8


class EngineName(StrEnum):
    """Where audits run."""

    LOCAL = "local"
    RAY = "ray"
    SLURM = "slurm"


EngineOption = Annotated[EngineName, typer.Option(help="Threads here, a Ray cluster, or a Slurm array.")]
SlurmOption = Annotated[
    list[str] | None, typer.Option(metavar="KEY=VALUE", help="submitit's parameters, such as slurm_partition=gpu.")
]


def evaluate(
    suite: Annotated[str, typer.Argument(help="A suite of the workspace.")] = "quickstart",
    budget: Annotated[list[int] | None, typer.Option(help="Model interactions an audit may spend; repeatable.")] = None,
    agent: Annotated[list[str] | None, typer.Option(help="Agents instead of the suite's; repeatable.")] = None,
    organism: Annotated[list[str] | None, typer.Option(help="Organisms instead of the suite's; repeatable.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Audits of each organism, agent and budget.")] = None,
    llm: LlmOption = None,
    grader: GraderOption = None,
    grader_llm: GraderLlmOption = None,
    lens_llm: LensLlmOption = None,
    llm_role: RolesOption = None,
    grader_repeats: Annotated[int | None, typer.Option(min=1, help="Verdicts of an LLM judge on each one.")] = None,
    protocol: ProtocolOption = Protocol.AUTO,
    server: ServerOption = None,
    engine: EngineOption = EngineName.LOCAL,
    slurm: SlurmOption = None,
    workers: Annotated[int, typer.Option(help="Audits at once; they share the models' batches.")] = WORKERS,
    out_dir: OutOption = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The run's name; default: suite and time.")] = None,
    resume: ResumeFlag = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Resume, and make failed audits anew.")] = False,
    join: Annotated[bool, typer.Option("--join", help="Help the process that makes this very run.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be made, and what it takes.")] = False,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    max_input_tokens: MaxInputTokens = None,
    max_time: MaxTime = None,
    allow_unpriced: UnpricedFlag = False,
    seed: SeedOption = 0,
    adapter_scale: AdapterScale = None,
    adapter_rank: AdapterRank = None,
    reference: ReferenceOption = None,
    corpus: CorpusOption = None,
    sets: SetOption = None,
    json: JsonFlag = False,
) -> int:
    """Audit every organism of SUITE with every agent, and grade the hypotheses."""
    begun = time.perf_counter()
    if workers < 1:
        raise UsageError(f"--workers {workers}: at least 1")
    if join and name is None:
        raise UsageError("--join needs the --name of the run that is under way")
    resume = resume or retry_failed
    folder = run_folder(out_dir, name, f"{suite}-{datetime.now():%Y%m%d-%H%M%S}", resume=resume)
    conf = settings(
        llm=llm, grader_llm=grader_llm, lens_llm=lens_llm, llm_roles=roles_of(llm_role),
        grader_repeats=grader_repeats, server=server,
    )  # fmt: skip
    ws = workspace()
    of_run, of_audit = limits_of(conf, max_cost, max_tokens, max_time, allowed=allow_unpriced)
    asked = limited(adapted(ws.suites[suite], budget, agent, organism, repeats, grader), of_audit)
    asked = set_lenses(ws, on_corpus(asked, corpus), sets or ()).model_copy(
        update={"tokens": max_input_tokens or asked.tokens}
    )
    announce_agent(conf)
    variant = variant_of(adapter_scale, adapter_rank, conf.server)
    from auditor.audits.check import demand_read

    plan, lenses = planned(ws, asked, conf, seed, protocol, variant, reference, fetch=not dry_run)
    demand_read(plan, lenses, sets or ())
    if dry_run:
        from auditor.cli.forecast import show_plan

        return show_plan(plan, lenses, json=json)
    announce(plan.suite.evidence, lenses, conf)
    announce_size(plan, lenses)
    announce_spans()
    from auditor.audits.run import Sitting

    sitting = Sitting(workers, of_run, resume, retry_failed)
    if join:
        return join_run(plan, folder, sitting, json=json)
    result = made(plan, folder, sitting, engine_of(engine, slurm or [], sitting))
    tell(result, folder, begun, json=json)
    return 0 if all(whole(audit, plan.suite) for audit in result.audits) and not result.open else 1


def announce_size(plan: Plan, lenses: Iterable[str]) -> None:
    """Say how much is asked for."""
    from auditor.audits.forecast import forecast

    found = forecast(plan, lenses)
    llm = found.agent_calls + found.judge_calls
    organisms = len(plan.suite.organisms)
    parts = [f"{found.audits} audits of {organisms} organism{'s' if organisms > 1 else ''}"]
    parts += [f"at most {found.interactions} model interactions", *([f"about {llm} LLM calls"] if llm else [])]
    parts += [f"{found.cost_usd:.2f} USD"] if found.cost_usd else []
    err.print(f"{', '.join(parts)} (--dry-run tells more)", style="dim", highlight=False)


def made(plan: Plan, folder: Path, sitting: Sitting, engine: Engine | None) -> RunResult:
    """All of it, its progress on stderr."""
    from auditor.audits.run import evaluate as run_all
    from auditor.cli.progress import Board
    from auditor.ledger.ledger import Ledger

    with Ledger.open(folder) as ledger, Board(ledger):
        return run_all(plan, ledger, sitting, engine)


def engine_of(name: EngineName, slurm: list[str], sitting: Sitting) -> Engine | None:
    """What makes the audits; None for this process. Raises UsageError."""
    if slurm and name is not EngineName.SLURM:
        raise UsageError("--slurm goes with --engine slurm")
    if name is EngineName.LOCAL:
        return None
    if name is EngineName.RAY:
        from auditor.audits import ray

        return ray.engine(user_root())
    from auditor.audits.slurm import engine

    if bad := [given for given in slurm if "=" not in given]:
        raise UsageError(f"--slurm {bad[0]}: write KEY=VALUE, such as slurm_partition=gpu")
    pairs = dict(given.split("=", 1) for given in slurm)
    return engine({k: int(v) if v.isdigit() else v for k, v in pairs.items()}, sitting, user_root())


def join_run(plan: Plan, folder: Path, sitting: Sitting, *, json: bool) -> int:
    """Work beside the process that has the run. Raises UsageError if it is another one."""
    from auditor.audits.request import request
    from auditor.audits.worker import request_in, work
    from auditor.ledger.ledger import differing

    if changed := differing(request_in(folder), request(plan), only_asked=True):
        raise UsageError(f"--join {folder}: that is another run: {', '.join(changed)} differ")
    ended = work(folder, plan.workspace, plan.settings, sitting)
    if json:
        print_json(ended)
    else:
        told = ", ".join(f"{count} {state}" for state, count in ended.items()) or "nothing was left to claim"
        out.print(f"{folder}: {told}; the run takes them over", highlight=False, markup=False)
    return 0 if set(ended) <= {"done"} else 1


def whole(audit: AuditRecord, suite: Suite) -> bool:
    """Whether the audit is done, with every grade that was asked for."""
    return audit.status == "done" and set(suite.graders) <= {grade.grader for grade in audit.grades}


def limited(suite: Suite, most: Most) -> Suite:
    """The suite with what each of its audits may take."""
    given = {"tokens": most.tokens, "cost_usd": most.cost_usd, "seconds": most.seconds}
    return suite.model_copy(update={key: value for key, value in given.items() if value is not None})
