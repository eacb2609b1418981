"""`auditor grade`: judge what a run's agents concluded, without running them again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from auditor.cli.runs import RUNS, In, RunArgument, show_run
from auditor.cli.shared import JsonFlag, announce_spans, err, settings, workspace
from auditor.errors import UsageError


def grade(
    run: RunArgument,
    grader: Annotated[
        list[str] | None, typer.Option(help="Graders of the workspace; repeatable; default: those the run lacks.")
    ] = None,
    grader_llm: Annotated[str | None, typer.Option(help="The judge, written as --llm is.")] = None,
    grader_repeats: Annotated[int | None, typer.Option(min=1, help="Verdicts of an LLM judge on each one.")] = None,
    out_dir: In = RUNS,
    json: JsonFlag = False,
) -> int:
    """Give every finished audit of RUN the verdicts that it lacks, of its own graders or of others."""
    from auditor.audits.bench import Bench
    from auditor.audits.check import check_graders
    from auditor.audits.grade import regrade
    from auditor.audits.runs import find_run, request_of
    from auditor.ledger.export import mend
    from auditor.ledger.ledger import Ledger, is_run

    folder = find_run(run, out_dir)
    if not is_run(folder):
        raise UsageError(f"{folder} is of a version without a ledger; it can be read, not graded anew")
    asked = request_of(folder)
    conf = settings(grader_llm=grader_llm or asked.get("grader_llm"), grader_repeats=grader_repeats)
    graders = tuple(dict.fromkeys(grader or asked.get("graders", ())))
    check_graders(workspace(), graders, conf.grader_llm)
    announce_spans()
    with Ledger.open(folder) as ledger:
        bench = Bench(workspace(), conf, ledger.calls)
        problems = [record for record in regrade(ledger, bench, graders, conf.grader_llm) if record.error]
        mend(ledger)
    show_run(folder, Path(out_dir), json)
    if problems:
        err.print(f"{len(problems)} audits lack a grade", style="red")
    return 1 if problems else 0
