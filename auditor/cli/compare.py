"""`auditor compare`: agents side by side, over one run or several."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from auditor.cli.runs import RUNS, In
from auditor.cli.shared import JsonFlag, out, plain, print_json, show_trust, workspace
from auditor.errors import UsageError
from auditor.records.comparison import Agreement, Comparison, Confidence, Difference, Spread, Standing

if TYPE_CHECKING:
    from auditor.comparison.scores import Run

MOST = 8  # lines of a kind that a terminal shows
TABLES = (".csv", ".parquet")


def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or their names in --out.")],
    grader: Annotated[list[str] | None, typer.Option(help="Only these; the first makes the headline.")] = None,
    table: Annotated[
        Path | None, typer.Option(help="Write every contender's row to this .csv or .parquet file.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw every organism as a point: .svg, .png or .pdf.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write the comparison as a page of its own.")] = None,
    out_dir: In = RUNS,
    json: JsonFlag = False,
) -> int:
    """Agents side by side: mean grades, shares of organisms, intervals, paired differences, and what each took."""
    from auditor.audits.calibrate import trust_of
    from auditor.comparison.compare import compare as compared
    from auditor.comparison.scores import is_called

    if table is not None and table.suffix not in TABLES:
        raise UsageError(f"--table {table}: its name must end with {' or '.join(TABLES)}")
    found = [read_run(run, out_dir) for run in dict.fromkeys(runs)]
    comparison = compared(found, grader or (), trust_of(workspace()))
    if unknown := [name for name in grader or () if not any(is_called(label, name) for label in comparison.graders)]:
        known = sorted({grade.grader for run in found for record in run.records for grade in record.grades})
        raise UsageError(f"--grader {unknown[0]} graded none of these; there are {', '.join(known) or 'no grades'}")
    write_files(comparison, table, plot, html)
    print_json(comparison) if json else show(comparison)
    if not json:
        for path in filter(None, (table, plot, html)):
            out.print(plain(str(path)), style="dim", highlight=False)
    return 0 if any(each.n for each in comparison.standings) else 1


def read_run(run: Path, folder: Path) -> Run:
    """A run as it is compared. Raises UsageError, BadFile."""
    from auditor.audits.runs import compared

    return compared(run, folder)


def write_files(comparison: Comparison, table: Path | None, plot: Path | None, html: Path | None) -> None:
    """Those that are asked for. Raises BadFile, UsageError."""
    if table is not None:
        from auditor.comparison.table import write

        write(comparison, table)
    if plot is not None:
        from auditor.comparison.figures import save

        save(comparison, plot)
    if html is not None:
        from auditor.reports.write import write_comparison

        write_comparison(comparison, html)


def show(comparison: Comparison) -> None:
    """The headline, then each grader's table, then what it rests on."""
    out.print(f"[bold]{plain(comparison.headline)}.[/] {plain(comparison.certainty)}", highlight=False)
    for grader in comparison.graders:
        out.print(standings_table(comparison, grader))
        show_trust(grader, comparison.judges.get(grader, ""))
        differences = [each for each in comparison.differences if each.grader == grader]
        if differences:
            for each in sorted(differences, key=lambda d: -abs(d.mean))[:MOST]:
                out.print(plain(difference_line(each)), highlight=False)
        if len(differences) > MOST:
            out.print(f"({len(differences) - MOST} more differences: --json or --html)", style="dim")
    for line in lines(comparison):
        out.print(plain(line), highlight=False)
    for note in comparison.notes:
        out.print(f"[yellow]note:[/] {plain(note)}", highlight=False)


def standings_table(comparison: Comparison, grader: str) -> Table:
    """Contenders in rows, best first."""
    table = Table(title=plain(f"{grader}: an organism counts once, however many audits it had"),
                  title_justify="left")  # fmt: skip
    table.add_column("agent @budget", overflow="fold")
    for head in ("mean", "95 %", "≥ 2", "≥ 4", "organisms", "audits", "held"):
        table.add_column(head, justify="right")
    rows = [each for each in comparison.standings if each.grader == grader]
    for each in sorted(rows, key=lambda row: -(row.mean or 0)):
        audits = f"{each.n} ({left_out(each)})" if each.failed else str(each.n)
        table.add_row(
            plain(each.contender), number(each.mean), interval(each), share(each.share_ge_2), share(each.share_ge_4),
            str(each.organisms), audits, share(each.claims_held),
        )  # fmt: skip
    return table


def difference_line(each: Difference) -> str:
    """Seen from the better side."""
    from auditor.comparison.headline import signed, turned

    one = each if each.mean >= 0 else turned(each)
    over = f" (95 %: {signed(one.ci95[0])} to {signed(one.ci95[1])})" if one.ci95 else ""
    told = f"{one.first} − {one.second}: {one.mean:+.2f}{over}, p {one.p:.2g}, Holm {one.p_holm:.2g}"
    told += f"; better on {one.better}, alike on {one.alike}, worse on {one.worse}"
    if one.detectable is not None and abs(one.mean) < one.detectable:
        told += f"; {one.organisms} organisms show differences from {one.detectable:.2f} on"
        told += f", this one needs {one.needed}" if one.needed else ""
    return told


def lines(comparison: Comparison) -> list[str]:
    """What else was measured, a line each; where there are many contenders, of the first ones."""
    first = comparison.graders[0] if comparison.graders else ""
    spreads = [each for each in comparison.standings if each.spread and each.grader == first]
    told = [_agreed(of) for of in comparison.agreement]
    told += [f"spread (sd) of {each.contender}: {_spread(each.spread)}" for each in spreads if each.spread][:MOST]
    told += [_stated(each) for each in comparison.confidence if each.grader == first][:MOST]
    told += [
        f"facts by {fact.contender} ({fact.grader}): {fact.outlined:.0%} in outline, {fact.exact:.0%} exactly, of "
        f"{fact.organisms} organism{'s' if fact.organisms != 1 else ''}"
        for fact in comparison.facts
    ][:MOST]
    told += [
        f"at {same.at:g} {same.measure} an audit: {same.contender} {same.grade:.2f}, {same.other} "
        f"{same.other_grade:.2f}"
        for same in comparison.matched
        if same.grader == first
    ][:MOST]
    return told


def _agreed(of: Agreement) -> str:
    value = "not defined: all gave one grade" if of.alpha is None else f"{of.alpha:.2f}"
    whom = " and ".join(of.between) if of.what == "graders" else f"{of.between[0]}'s verdicts"
    means = f"; means {' and '.join(f'{mean:.2f}' for mean in of.means)}" if of.means else ""
    return f"agreement of {whom} on {of.audits} audits: Krippendorff's alpha {value}{means}"


def _spread(spread: Spread) -> str:
    parts = [f"organisms {spread.organisms:.2f}", f"repeats {spread.repeats:.2f}"]
    return ", ".join(parts + ([f"verdicts {spread.verdicts:.2f}"] if spread.verdicts is not None else []))


def _stated(each: Confidence) -> str:
    return (
        f"confidence of {each.agent}: states {each.stated:.2f}, right {each.right:.0%} of {each.n}; Brier "
        f"{each.brier:.2f} (always stating {each.right:.2f}: {each.brier_constant:.2f})"
    )


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def interval(each: Standing) -> str:
    """Of the mean; why there is none."""
    if each.ci95:
        return f"{each.ci95[0]:.2f}–{each.ci95[1]:.2f}"
    return "–" if not each.organisms else "one organism" if each.organisms == 1 else "all alike"


def left_out(each: Standing) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in each.left_out.items()) or "0"
