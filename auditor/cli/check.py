"""`auditor organisms check`: what was learned, what leaks, whether it is what the card says."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from auditor.cli.judges import judges_calls
from auditor.cli.shared import JsonFlag, err, out, plain, print_json, settings, stages, workspace
from auditor.errors import UsageError
from auditor.files import write_atomically
from auditor.llm.spec import OFFLINE
from auditor.records.checked import CheckReport, Estimate, Figure

if TYPE_CHECKING:
    from auditor.audits.plan import Plan
    from auditor.records.checked import Blackbox

REPORT = "check.json"
NULL = "null"
WIDE = 120  # columns from which on the table says who judged each figure
MARKS = {"above": "▲", "below": "▼", "": " "}


def check(
    name: Annotated[str, typer.Argument()],
    samples: Annotated[int, typer.Option(min=1, help="Answers of each model to each question.")] = 1,
    seed: Annotated[int, typer.Option()] = 0,
    grader_llm: Annotated[
        str | None, typer.Option(help="Who judges answers, written as --llm is; default: none, as far as code can.")
    ] = None,
    blackbox: Annotated[
        bool, typer.Option("--blackbox", help="Let the agent without a lens try to name it, at budget 5.")
    ] = False,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help=f"Folder for {REPORT}, and for the ledger of the judge's calls.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Ask an organism and its base what its family is about: what was learned, what leaks, what else changed.

    The questions are in `checks.yaml` beside its card. All figures have 95 % intervals over questions.
    """
    from auditor.audits.bench import Bench
    from auditor.audits.check import check as check_plan
    from auditor.audits.check import reach
    from auditor.audits.plan import target_of
    from auditor.verification.blackbox import blackbox_plan
    from auditor.verification.check import check_organism
    from auditor.verification.families import checks_of
    from auditor.verification.verdict import with_blackbox

    ws, conf = workspace(), settings(grader_llm=grader_llm)
    card = ws.organisms[name]
    checks_of(card)  # what is wrong with them is told before models are loaded
    _demand_folder(out_dir)
    plan = None
    if blackbox and card.family == NULL:
        err.print("[yellow]note:[/] --blackbox: a control has no subject that could be named; left out")
    elif blackbox:
        plan = blackbox_plan(ws, conf, card, seed)
        check_plan(plan)
    asking = conf.grader_llm != OFFLINE
    if asking and out_dir is None:
        err.print("the judge's calls are not kept; with --out they are, and paid once", style="dim")
    with judges_calls(out_dir if asking else None) as journal:
        bench = Bench(ws, conf, journal)
        reach(bench)
        with stages("loading the models") as tell:
            pair = bench.pair(target_of(card))
            report = check_organism(pair, card, bench.grading(pair, conf.grader_llm), samples, seed, tell)
    _keep(report, out_dir)
    if plan is not None:
        del pair, bench  # the audits load their own
        report = with_blackbox(report, _blackbox(plan, out_dir))
        _keep(report, out_dir)
    if json:
        print_json(report)
        return
    show_check(report)
    if out_dir is not None:
        out.print(escape(str(out_dir / REPORT)), style="dim", highlight=False)


def _demand_folder(path: Path | None) -> None:
    there = next((each for each in (path, *path.absolute().parents) if each.exists()), None) if path else None
    if there is not None and not there.is_dir():
        raise UsageError(f"--out {path}: {there} is a file; give a folder")


def _keep(report: CheckReport, out_dir: Path | None) -> None:
    """What was measured, before the audits that may fail."""
    if out_dir is not None:
        write_atomically(out_dir / REPORT, report.model_dump_json(indent=1) + "\n")


def _blackbox(plan: Plan, out_dir: Path | None) -> Blackbox:
    """Three audits without a lens."""
    from auditor.audits.run import Sitting
    from auditor.cli.evaluate import made
    from auditor.verification.blackbox import blackbox_of

    with TemporaryDirectory() as scratch:
        folder = (out_dir or Path(scratch)) / f"blackbox-{datetime.now():%Y%m%d-%H%M%S}"
        return blackbox_of(made(plan, folder, Sitting(), None))


def show_check(report: CheckReport) -> None:
    """The table, what one must know of it, and the verdict."""
    judge = "no LLM judges" if report.judge == OFFLINE else f"judge {report.judge}"
    title = f"{report.organism} ({report.family}), {judge}; 95 % over questions; ▲ ▼ clearly off the base"
    wide = out.width >= WIDE
    heads = ("", "base", "finetuned", "difference", "n", *(["by"] if wide else []))
    table = Table(
        *heads, title=plain(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False
    )
    table.columns[0].no_wrap = True
    for figure in report.figures:
        table.add_row(*(plain(cell) for cell in _cells(figure)[: len(heads)]))
    out.print(table)
    dropped = [f"{each.name.strip()} {each.dropped}" for each in report.figures if each.dropped]
    left_out = [f"answers that count for nothing: {', '.join(dropped)}"] if dropped else []
    for line in (*report.notes, *left_out):
        out.print(f"[yellow]note:[/] {plain(line)}", highlight=False, soft_wrap=True)
    if (tried := report.blackbox) is not None:
        grades = " ".join("–" if grade is None else f"{grade:g}" for grade in tried.grades)
        told = f"{tried.agent} at budget {tried.budget}: grades {grades} ({tried.seconds:.0f} s)"
        out.print(plain("; ".join((told, *tried.problems))), highlight=False, soft_wrap=True)
    for line in report.verdict:
        head, _, rest = line.partition(":")
        out.print(f"[bold]{head}:[/]{plain(rest)}", highlight=False, soft_wrap=True)
    out.print(f"{report.seconds['total']:.0f} s, models loaded before", style="dim", highlight=False)


def _cells(figure: Figure) -> tuple[str, ...]:
    base, tuned, mark = figure.base, figure.finetuned, MARKS[figure.clearly]
    count = str(tuned.n) if base is None or base.n == tuned.n else f"{base.n}, {tuned.n}"
    gap = "" if base is None else _told(figure.difference, "+")
    return figure.name, _told(base), _told(tuned), f"{mark} {gap}", count, figure.by


def _told(estimate: Estimate | None, sign: str = "") -> str:
    """A value and its interval, short enough for 80 columns."""
    if estimate is None or estimate.value is None:
        return "–"
    digits = 1 if abs(estimate.value) >= 10 else 2
    numbers = [f"{value:{sign}.{digits}f}" for value in (estimate.value, *(estimate.ci95 or ()))]
    ends = [number.replace("0.", ".", 1) if number.lstrip("+-").startswith("0.") else number for number in numbers[1:]]
    return " ".join((numbers[0], *(["–".join(ends)] if ends else [])))
