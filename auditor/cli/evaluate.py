"""`auditor evaluate`: the main job."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from auditor.cli.shared import (
    AdapterRank,
    AdapterScale,
    JsonFlag,
    LensLlmOption,
    LlmOption,
    OutOption,
    ProtocolOption,
    ReferenceOption,
    ResumeFlag,
    SeedOption,
    ServerOption,
    announce,
    announce_agent,
    err,
    out,
    print_json,
    run_folder,
    settings,
    tell_notes,
    variant_of,
    workspace,
)
from auditor.errors import UsageError
from auditor.records.cards import Protocol, Suite
from auditor.records.results import LlmUse, RunResult, SummaryRow
from auditor.runtime import heed_interrupts

WORKERS = 8


def evaluate(
    suite: Annotated[str, typer.Argument(help="A suite of the workspace.")] = "quickstart",
    budget: Annotated[list[int] | None, typer.Option(help="Model interactions an audit may spend; repeatable.")] = None,
    agent: Annotated[list[str] | None, typer.Option(help="Agents instead of the suite's; repeatable.")] = None,
    organism: Annotated[list[str] | None, typer.Option(help="Organisms instead of the suite's; repeatable.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Audits of each organism, agent and budget.")] = None,
    llm: LlmOption = None,
    grader_llm: Annotated[str | None, typer.Option(help="The hypotheses' judge, written as --llm is.")] = None,
    lens_llm: LensLlmOption = None,
    grader_repeats: Annotated[int | None, typer.Option(min=1, help="Verdicts of an LLM judge on each one.")] = None,
    protocol: ProtocolOption = Protocol.AUTO,
    server: ServerOption = None,
    engine: Annotated[str, typer.Option(help="`local`; `ray` is not there yet.")] = "local",
    workers: Annotated[int, typer.Option(help="Audits at once; they share the models' batches.")] = WORKERS,
    out_dir: OutOption = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The run's name; default: suite and time.")] = None,
    resume: ResumeFlag = False,
    seed: SeedOption = 0,
    adapter_scale: AdapterScale = None,
    adapter_rank: AdapterRank = None,
    reference: ReferenceOption = None,
    json: JsonFlag = False,
) -> int:
    """Audit every organism of SUITE with every agent, and grade the hypotheses."""
    begun = time.perf_counter()
    if engine != "local":
        raise UsageError(f"--engine {engine}: only `local` is there as yet")
    if workers < 1:
        raise UsageError(f"--workers {workers}: at least 1")
    folder = run_folder(out_dir, name, f"{suite}-{datetime.now():%Y%m%d-%H%M%S}", resume=resume)
    ws = workspace()
    conf = settings(llm=llm, grader_llm=grader_llm, lens_llm=lens_llm, grader_repeats=grader_repeats, server=server)

    from auditor.evaluation.check import check
    from auditor.evaluation.job import Evaluation, judged_by
    from auditor.evaluation.manifest import made_with, request
    from auditor.evaluation.run import evaluate as run_all
    from auditor.evaluation.store import RunStore
    from auditor.evidence.recipe import held_against, named_by

    chosen = judged_by(adapted(ws.suites[suite], budget, agent, organism, repeats), conf)
    announce_agent(conf)
    check(ws, chosen, conf)
    lenses = named_by(ws, [ws.agents[name] for name in chosen.agents])
    if reference is not None:
        chosen = chosen.model_copy(update={"evidence": held_against(ws, chosen.evidence, lenses, reference)})
    announce(chosen.evidence, lenses, conf)
    total = len(chosen.organisms) * len(chosen.agents) * len(chosen.budgets) * chosen.repeats
    variant = variant_of(adapter_scale, adapter_rank, server=conf.server)
    asked = request(ws, chosen, conf, seed, protocol, variant)
    with RunStore.open(folder, asked, made_with(conf), resume=resume) as store:
        tell_notes(store.notes)
        with _Bars(total) as bars:
            result = run_all(Evaluation(ws, chosen, conf, seed, workers, store, bars, protocol, variant))
    result = result.model_copy(update={"seconds": {**result.seconds, "total": round(time.perf_counter() - begun, 2)}})
    if json:
        print_json(result)
    else:
        show(result)
    return 1 if any(audit.status == "failed" for audit in result.audits) else 0


def adapted(
    suite: Suite,
    budgets: list[int] | None,
    agents: list[str] | None,
    organisms: list[str] | None,
    repeats: int | None,
) -> Suite:
    """The suite with what the command line says instead. Raises UsageError for numbers that make no sense."""
    if bad := [b for b in budgets or [] if b < 0]:
        raise UsageError(f"--budget {bad[0]}: a budget is 0 or more model interactions")
    if repeats is not None and repeats < 1:
        raise UsageError(f"--repeats {repeats}: at least 1")
    given = {"budgets": budgets, "agents": agents, "organisms": organisms}
    update: dict[str, object] = {key: tuple(dict.fromkeys(v)) for key, v in given.items() if v}
    return suite.model_copy(update=update | ({"repeats": repeats} if repeats else {}))


class _Bars:
    """Progress on stderr: the organism and its stage, audits done, interactions spent."""

    def __init__(self, total: int) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[note]}"), console=err, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("audits", total=total, note="")
        self._spent: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stage = ("", "", time.perf_counter())
        self._total, self._ended = total, 0

    def __enter__(self) -> _Bars:
        self._bar.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._close_stage()
        self._bar.stop()

    def stage(self, organism: str, stage: str) -> None:
        heed_interrupts()
        self._close_stage()
        self._stage = (organism, stage, time.perf_counter())
        self._bar.update(self._task, description=f"[bold]{organism}[/] {stage}", note="")

    def _close_stage(self) -> None:
        organism, stage, begun = self._stage
        if stage:
            err.print(f"  {organism}: {stage} {time.perf_counter() - begun:.0f} s", style="dim", highlight=False)

    def note(self, organism: str, text: str) -> None:
        err.print(f"[yellow]note:[/] {organism}: {escape(text)}", highlight=False, soft_wrap=True)

    def audit(self, audit_id: str, state: str, interactions: int) -> None:
        with self._lock:
            self._spent[audit_id] = interactions
            spent = sum(self._spent.values())
        self._bar.update(self._task, note=f"{audit_id}: {state}, {spent} interactions in all")
        if state == "running":
            return
        self._bar.advance(self._task)
        with self._lock:
            self._ended += 1
            ended = self._ended
        if not err.is_terminal:
            err.print(f"  {audit_id}: {state} ({ended} of {self._total})", style="dim", markup=False, highlight=False)


def show(result: RunResult) -> None:
    """Each organism's grades by each grader, the agents side by side, and where everything lies."""
    head = f"suite {result.suite} · agent {result.llm} · grader {result.grader}"
    out.print(head, style="italic", markup=False, highlight=False)
    graders = list(dict.fromkeys(row.grader for row in result.summary))
    for grader in graders:
        out.print(_grades(result, grader, title=grader if len(graders) > 1 else None))
    for audit in result.audits:
        if audit.error:
            out.print(f"[red]{audit.id}[/]: {escape(audit.error)}", highlight=False, soft_wrap=True)
    best = max((a for a in result.audits if a.grade is not None), key=lambda a: a.grade or 0, default=None)
    if best is not None:
        out.print(f"\n[bold]{best.id}[/] (grade {best.grade:g}): {escape(best.hypothesis)}", highlight=False)
    for role, use in result.llm_use.items():
        out.print(f"{role}: {_use(use)}", style="dim", highlight=False)
    took = " · ".join(f"{stage} {value:.0f} s" for stage, value in result.seconds.items())
    out.print(f"\n{took}\n{escape(result.run)}", style="dim", highlight=False)


def _grades(result: RunResult, grader: str, title: str | None) -> Table:
    """One grader's scores: organisms in rows, agents and budgets in columns."""
    rows = {(row.agent, row.budget): row for row in result.summary if row.grader == grader}
    table = Table(title=title, title_justify="left")
    table.add_column("organism")
    for agent, budget in rows:
        table.add_column(f"{agent}\nbudget {budget}", justify="right")
    for organism in dict.fromkeys(a.organism for a in result.audits):
        cells = []
        for column in rows:
            mine = [a for a in result.audits if a.organism == organism and (a.agent, a.budget) == column]
            scores = [a.score_of(grader) for a in mine]
            cells.append("  ".join(f"{score:g}" if score is not None else "[red]failed[/]" for score in scores))
        table.add_row(organism, *cells)
    table.add_section()

    def line(label: str, value: str) -> None:
        table.add_row(label, *(value.format(r=row) if row.mean is not None else "–" for row in rows.values()))

    line("mean grade", "[bold]{r.mean:.2f}[/]")
    table.add_row("95 % interval", *(_interval(row) for row in rows.values()))
    line("share ≥ 2", "{r.share_ge_2:.0%}")
    line("share ≥ 4", "{r.share_ge_4:.0%}")
    return table


def _interval(row: SummaryRow) -> str:
    return f"{row.ci95[0]:.2f}–{row.ci95[1]:.2f}" if row.ci95 else f"none (n = {row.n})"


def _use(use: LlmUse) -> str:
    tokens = f"{use.tokens.input:,} tokens in, {use.tokens.output:,} out" if use.tokens else "tokens unknown"
    return f"{use.calls} LLM calls, {tokens}, {'cost unknown' if use.cost_usd is None else f'{use.cost_usd:.4f} USD'}"
