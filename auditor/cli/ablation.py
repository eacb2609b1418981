"""`auditor study ablation`: what each lens is worth to an agent."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from auditor.audits.asked import adapted, planned
from auditor.cli.evaluate import WORKERS, announce_size, limited, made
from auditor.cli.judges import announce_agent
from auditor.cli.runs import RUNS
from auditor.cli.shared import (
    JsonFlag,
    LensLlmOption,
    LlmOption,
    MaxCost,
    MaxTime,
    MaxTokens,
    OutOption,
    ResumeFlag,
    SeedOption,
    ServerOption,
    UnpricedFlag,
    announce,
    err,
    limits_of,
    out,
    print_json,
    run_folder,
    settings,
    show_trust,
    workspace,
)
from auditor.errors import UsageError
from auditor.llm.spec import OFFLINE

if TYPE_CHECKING:
    from auditor.studies.ablation import AblationRow


def ablation(
    run: Annotated[Path | None, typer.Option(help="Read this run instead of making one.")] = None,
    suite: Annotated[str, typer.Option(help="The suite that is run.")] = "ablation",
    agent: Annotated[list[str] | None, typer.Option(help="Only these of the suite's agents; repeatable.")] = None,
    organism: Annotated[list[str] | None, typer.Option(help="Organisms instead of the suite's; repeatable.")] = None,
    repeats: Annotated[int | None, typer.Option(help="Audits of each organism, agent and budget.")] = None,
    llm: LlmOption = None,
    grader_llm: Annotated[str | None, typer.Option(help="The hypotheses' judge, written as --llm is.")] = None,
    lens_llm: LensLlmOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Audits at once; they share the models' batches.")] = WORKERS,
    out_dir: OutOption = RUNS,
    name: Annotated[str | None, typer.Option(help="The run's name; default: suite and time.")] = None,
    resume: ResumeFlag = False,
    server: ServerOption = None,
    max_cost: MaxCost = None,
    max_tokens: MaxTokens = None,
    max_time: MaxTime = None,
    allow_unpriced: UnpricedFlag = False,
    seed: SeedOption = 0,
    json: JsonFlag = False,
) -> int:
    """Run the suite `ablation`, or read such a run: each agent's grades beside those of `blackbox`, without a lens."""
    from auditor.audits.runs import find_run

    if run is not None:
        options = {"--name": name, "--llm": llm, "--agent": agent, "--organism": organism, "--repeats": repeats}
        if given := [option for option, value in options.items() if value is not None]:
            raise UsageError(f"--run reads a run that is there: leave out {given[0]}, or --run")
        return show_ablation(find_run(run, out_dir), json=json)
    from auditor.audits.run import Sitting

    folder = run_folder(out_dir, name, f"{suite}-{datetime.now():%Y%m%d-%H%M%S}", resume=resume)
    conf = settings(llm=llm, grader_llm=grader_llm, lens_llm=lens_llm, server=server)
    of_run, of_audit = limits_of(conf, max_cost, max_tokens, max_time, allowed=allow_unpriced)
    asked = limited(adapted(workspace().suites[suite], None, agent, organism, repeats), of_audit)
    announce_agent(conf)
    plan, lenses = planned(workspace(), asked, conf, seed)
    announce(plan.suite.evidence, lenses, conf)
    announce_size(plan, lenses)
    made(plan, folder, Sitting(workers, of_run, resume), None)
    return show_ablation(folder, json=json)


def show_ablation(folder: Path, *, json: bool) -> int:
    """What the audits of a run come to, agent by agent; 1 if some failed, or have not ended."""
    from auditor.audits.calibrate import trust_in
    from auditor.audits.runs import records_of, request_of, summary_of
    from auditor.studies.ablation import ablation_rows

    records, about, asked = list(records_of(folder)), summary_of(folder), request_of(folder)
    rows, llm = ablation_rows(records), str(asked.get("grader_llm", OFFLINE))
    trust = {name: trust_in(workspace(), name, llm, asked) for name in dict.fromkeys(row.grader for row in rows)}
    open_ = {state: count for state, count in about.states.items() if state in ("queued", "running")}
    if json:
        print_json({"run": str(folder), "rows": [row.model_dump() for row in rows], "trust": trust, "open": open_})
    else:
        _show(rows, trust, folder)
    if open_:
        err.print(f"[yellow]{sum(open_.values())} audits have not ended[/]: what is shown is of the others")
    return 1 if open_ or any(record.status == "failed" for record in records) else 0


def _show(rows: Sequence[AblationRow], trust: dict[str, str], folder: Path) -> None:
    """A table for each grader, with what it is worth under it."""
    from auditor.studies.ablation import WITHOUT

    for grader, line in trust.items():
        table = Table(title=escape(grader), title_justify="left")
        table.add_column("agent")
        for head in ("budget", "organisms", "audits", "left out", "mean", "beside blackbox", "95 % interval", "p"):
            table.add_column(head, justify="right")
        for row in (row for row in rows if row.grader == grader):
            table.add_row(escape(row.agent), *_cells(row))
        out.print(table)
        show_trust(grader, line)
    if not rows:
        out.print("no audit has a grade")
    elif all(row.worth is None for row in rows):
        out.print(f"nothing to compare: no organism was audited by {WITHOUT} and another agent at one budget")
    out.print(escape(str(folder)), style="dim", highlight=False)


def _cells(row: AblationRow) -> tuple[str, ...]:
    shown = "–" if row.mean is None else f"{row.mean:.2f}"
    worth = "–" if row.worth is None else f"{row.worth:+.2f} (of {row.compared})"
    interval = f"{row.ci95[0]:+.2f} to {row.ci95[1]:+.2f}" if row.ci95 else "–"
    p = "–" if row.p is None else f"{row.p:.2g}"
    return str(row.budget), str(row.organisms), str(row.audits), str(row.left_out), shown, worth, interval, p
