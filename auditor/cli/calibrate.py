"""`auditor graders calibrate`: how far judges can be trusted, measured on hypotheses that people have graded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from auditor.cli.shared import JsonFlag, err, out, print_json, run_folder, settings, user_root, workspace
from auditor.errors import UsageError
from auditor.records.calibration import Calibration, Fit
from auditor.text import visible

if TYPE_CHECKING:
    from auditor.audits.bench import Bench
    from auditor.audits.calibrate import Judged
    from auditor.audits.labels import Labelled
    from auditor.ledger.ledger import Ledger

INTERRUPTED = 130
EVERY = 10  # hypotheses between two lines of progress


def calibrate(
    labels: Annotated[Path, typer.Argument(help="JSON lines: organism, hypothesis, grade 1 to 5; id, labeller.")],
    grader: Annotated[list[str] | None, typer.Option(help="Judges; repeatable; default: the suite's.")] = None,
    grader_llm: Annotated[str | None, typer.Option(help="The judges' model, written as --llm is.")] = None,
    grader_repeats: Annotated[int | None, typer.Option(min=1, help="Verdicts of an LLM judge on each one.")] = None,
    suite: Annotated[str, typer.Option(help="Suite whose graders are taken.")] = "quickstart",
    to: Annotated[
        Path | None, typer.Option(help="Folder for GRADER@MODEL.json; default: evals/calibrations of your workspace.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Hypotheses that are judged at once.")] = 8,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the ledger of the judges' calls.")] = Path(
        "calibrations"
    ),
    name: Annotated[
        str | None, typer.Option(help="The ledger's folder there; default: the labels' name. A new one asks anew.")
    ] = None,
    json: JsonFlag = False,
) -> int:
    """Judge labelled hypotheses; how well do the judges agree with the labels, and with themselves?

    What a judge answered is kept: the same command again pays for nothing twice, and asks for what is missing.
    """
    from auditor.audits.bench import Bench
    from auditor.audits.calibrate import check_calibration
    from auditor.audits.labels import demand_enough, read_labels
    from auditor.audits.plan import judged_by

    ws, conf = workspace(), settings(grader_llm=grader_llm, grader_repeats=grader_repeats)
    graders = tuple(dict.fromkeys(grader or judged_by(ws, ws.suites[suite], conf).graders))
    given = read_labels(labels, ws)
    demand_enough(given, labels)
    check_calibration(ws, graders, given, labels, conf.grader_llm)
    folder, kept_in = run_folder(out_dir, name, labels.stem, resume=False), _kept_in(to)
    asking = any(ws.graders[each].llm for each in graders)
    with _calls(folder, asking=asking) as ledger, _interruptible(asking):
        bench = Bench(ws, conf, ledger.calls) if ledger else Bench(ws, conf)
        results = [_measured(each, given, labels, bench, workers, kept_in) for each in graders]
        _tell_calls(ledger)
    _print(results, graders, labels, json=json)
    return 1 if any(judged.unasked for _, judged, _ in results) else 0


def _kept_in(to: Path | None) -> Path | None:
    """Where calibrations are written; nowhere, and said so, without a workspace. Raises UsageError."""
    if to is not None:
        if not to.is_dir():
            raise UsageError(f"--to {to}: give a folder that exists, such as a workspace's evals/calibrations")
        return to
    if root := user_root():
        return root / "evals" / "calibrations"
    err.print(
        "[yellow]note:[/] no workspace here: the result is shown, not kept; `auditor init` makes one, or give --to"
    )
    return None


@contextmanager
def _calls(folder: Path, *, asking: bool) -> Iterator[Ledger | None]:
    """The ledger of the LLMs' calls; none where no LLM is asked."""
    from auditor.ledger.ledger import Ledger

    if not asking:
        yield None
        return
    with Ledger.open(folder) as ledger:
        yield ledger


@contextmanager
def _interruptible(asking: bool) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        if asking:
            err.print("interrupted; the same command goes on from here, and pays for no finished call again")
        raise SystemExit(INTERRUPTED) from None


def _measured(
    grader: str, labels: Sequence[Labelled], path: Path, bench: Bench, workers: int, kept_in: Path | None
) -> tuple[Calibration | None, Judged, Path | None]:
    """A judge's calibration, and its file; none of both while it could not be asked about some hypotheses."""
    from auditor.audits.calibrate import calibration_of, judge_labels
    from auditor.files import write_atomically

    judged = judge_labels(labels, grader, bench, workers, _progress(grader, len(labels)))
    if judged.unasked:
        return None, judged, None
    found = calibration_of(labels, path, grader, judged, bench.workspace, bench.settings)
    written = kept_in / f"{found.name}.json" if kept_in else None
    if written is not None:
        write_atomically(written, found.model_dump_json(indent=1) + "\n")
    return found, judged, written


def _progress(grader: str, total: int) -> Callable[[int], None]:
    def tell(done: int) -> None:
        if done % EVERY == 0 or done == total:
            err.print(f"{grader}: {done} of {total} hypotheses", style="dim", highlight=False)

    return tell


def _tell_calls(ledger: Ledger | None) -> None:
    """What the ledger holds, so that it is seen what was paid for before."""
    if ledger is not None:
        calls = sum(use.calls for use in ledger.calls.used().values())
        err.print(f"{calls} answered LLM calls so far are kept in {escape(str(ledger.path))}", style="dim")


def _print(
    results: Sequence[tuple[Calibration | None, Judged, Path | None]],
    graders: Sequence[str],
    labels: Path,
    *,
    json: bool,
) -> None:
    from auditor.audits.calibrate import line_of

    if json:
        judges = [
            {
                "grader": grader,
                "trust": line_of(found) if found else None,
                "path": str(path) if path else None,
                "calibration": found.model_dump(mode="json") if found else None,
                "unasked": judged.unasked,
            }
            for grader, (found, judged, path) in zip(graders, results, strict=True)
        ]
        print_json({"labels": str(labels), "judges": judges})
    for grader, (found, judged, path) in zip(graders, results, strict=True):
        if found is None:
            which, why = next(iter(judged.unasked.items()))
            reason = f"{len(judged.unasked)} hypotheses were not judged ({which}: {visible(why)})"
            told = f"{grader}: {reason}; nothing is lost: the same command again asks for these only"
            err.print(f"[red]not calibrated[/] {escape(told)}", highlight=False, soft_wrap=True)
        elif not json:
            show_calibration(found)
            out.print(escape(str(path)) if path else "not kept", style="dim", highlight=False)


def show_calibration(found: Calibration) -> None:
    """Its line, figures by rubric, the confusion matrix, and how steady judge and labellers are."""
    from auditor.audits.calibrate import line_of, passes

    told = f"{found.grader} ({found.llm}): {line_of(found)}"
    out.print(escape(told), style="bold" if passes(found) else "bold yellow", highlight=False, soft_wrap=True)
    table = Table("", *(["n", "kappa", "exact", "within one", "mean error"]))
    for head, fit in {"all": found.fit, **found.rubrics}.items():
        table.add_row(escape(head), *_figures(fit))
    out.print(table)
    matrix = Table("label ↓  judge →", *map(str, range(1, 6)))
    for level, row in enumerate(found.confusion, 1):
        matrix.add_row(str(level), *(str(count) if count else "·" for count in row))
    out.print(matrix)
    if (own := found.itself) is not None:
        kappa = "undefined" if own.kappa is None else f"{own.kappa:.2f}"
        told = f"kappa {kappa} between two, {own.unanimous:.0%} of {own.n} hypotheses judged the same each time"
        out.print(f"with itself, {own.verdicts} verdicts each: {told}", highlight=False)
    for pair in found.agreement:
        kappa = "none" if pair.kappa is None else f"{pair.kappa:.2f}"
        told = f"{visible(pair.first)} and {visible(pair.second)}: kappa {kappa}, {pair.exact:.0%} exact, on {pair.n}"
        out.print(escape(f"labellers {told}"), highlight=False)
    for which, why in found.without.items():
        out.print(escape(f"no verdict on {which}: {visible(why)}"), style="yellow", highlight=False, soft_wrap=True)


def _figures(fit: Fit) -> tuple[str, ...]:
    kappa = "–" if fit.kappa is None else f"{fit.kappa:.2f}"
    return str(fit.n), kappa, f"{fit.exact:.0%}", f"{fit.within_one:.0%}", f"{fit.mean_error:+.2f}"
