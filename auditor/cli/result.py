"""What a run came to, at its end: grades by organism, the agents side by side, and the report."""

from __future__ import annotations

import time
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from auditor.cli.compare import MOST, difference_line, interval
from auditor.cli.shared import err, out, plain, print_json, show_trust
from auditor.errors import AuditorError
from auditor.records.results import AuditRecord, LlmUse, RunResult


def tell(result: RunResult, folder: Path, begun: float, *, json: bool) -> None:
    """Print it, as JSON or for people, who get a report as well."""
    result = result.model_copy(update={"seconds": {**result.seconds, "total": round(time.perf_counter() - begun, 2)}})
    if json:
        print_json(result)
        return
    show(result)
    report(folder, anew=bool(result.seconds["agents"] or result.seconds["grading"]))


def report(folder: Path, *, anew: bool) -> None:
    """Write the run's report if there is something new in it, and say where it lies. What fails at it is said."""
    from auditor.cli.report import REPORT, written

    path = folder / REPORT
    try:
        if anew or not path.exists():
            written(folder, folder.parent, path)
    except AuditorError as error:  # the run itself is whole
        err.print(f"[yellow]no report:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        return
    out.print(f"[bold]{escape(str(path))}[/]: the comparison, every audit, what was read", highlight=False)


def show(result: RunResult) -> None:
    """Each organism's grades by each grader, the agents side by side, and where everything lies."""
    head = f"suite {result.suite} · agent {result.llm} · grader {result.grader}"
    out.print(head, style="italic", markup=False, highlight=False)
    graders = list(dict.fromkeys(row.grader for row in result.summary))
    for grader in graders:
        out.print(_grades(result, grader, title=grader if len(graders) > 1 else None))
        show_trust(grader, result.trust.get(grader, ""))
    for audit in result.audits:
        if audit.error:
            out.print(f"[red]{audit.id}[/]: {plain(audit.error)}", highlight=False, soft_wrap=True)
    for audit in result.audits:
        if audit.ended_by not in ("", "turns"):
            out.print(f"{audit.id}: concluded at the limit of {audit.ended_by}", style="dim", highlight=False)
    if result.open:
        out.print(
            f"[yellow]{result.open} audits were not begun[/]: a limit of the run was reached; raise it, and --resume"
        )
    best = max((a for a in result.audits if a.grade is not None), key=lambda a: a.grade or 0, default=None)
    if best is not None:
        out.print(f"\n[bold]{best.id}[/] (grade {best.grade:g}): {plain(best.hypothesis)}", highlight=False)
    for role, use in result.llm_use.items():
        out.print(f"{role}: {_use(use)}", style="dim", highlight=False)
    out.print(f"\n[bold]{plain(result.headline)}.[/] {plain(result.certainty)}", highlight=False)
    for each in sorted(result.differences, key=lambda d: -abs(d.mean))[:MOST]:
        out.print(plain(difference_line(each)), highlight=False)
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
            cells.append("  ".join(_cell(a, score) for a, score in zip(mine, scores, strict=True)))
        table.add_row(organism, *cells)
    table.add_section()

    def line(label: str, value: str) -> None:
        table.add_row(label, *(value.format(r=row) if row.mean is not None else "–" for row in rows.values()))

    line("mean grade", "[bold]{r.mean:.2f}[/]")
    table.add_row("95 % interval", *(interval(row) for row in rows.values()))
    line("share ≥ 2", "{r.share_ge_2:.0%}")
    line("share ≥ 4", "{r.share_ge_4:.0%}")
    return table


def _cell(audit: AuditRecord, score: float | None) -> str:
    if score is not None and audit.status == "done":
        return f"{score:g}"
    return f"[red]{'no grade' if audit.status == 'done' else audit.status}[/]"


def _use(use: LlmUse) -> str:
    tokens = f"{use.tokens.input:,} tokens in, {use.tokens.output:,} out" if use.tokens else "tokens unknown"
    return f"{use.calls} LLM calls, {tokens}, {'cost unknown' if use.cost_usd is None else f'{use.cost_usd:.4f} USD'}"
