"""`auditor worker` and `auditor merge`: many hands at one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from auditor.cli.runs import RUNS, In, RunArgument
from auditor.cli.shared import JsonFlag, ServerOption, announce_spans, err, out, print_json, settings, workspace

WORKERS = 8


def worker(
    join: Annotated[Path, typer.Option("--join", help="The run's folder, which this machine shares.")],
    workers: Annotated[int, typer.Option(min=1, help="Audits at once; they share the models' batches.")] = WORKERS,
    server: ServerOption = None,
    json: JsonFlag = False,
) -> int:
    """Make audits of a run that another process began, here or on another machine, until nothing is left to claim."""
    from auditor.audits.run import Sitting
    from auditor.audits.worker import request_in, roles_of, work

    conf = settings(**roles_of(request_in(join)), server=server)
    announce_spans()
    ended = work(join, workspace(), conf, Sitting(workers))
    told = ", ".join(f"{count} {state}" for state, count in ended.items()) or "nothing was left to claim"
    if json:
        print_json(ended)
    else:
        out.print(f"{escape(str(join))}: {told}; the run takes them over", highlight=False)
    return 0 if set(ended) <= {"done"} else 1


def merge(run: RunArgument, out_dir: In = RUNS) -> None:
    """Take what workers beside a run did into its ledger, where the process that began it is no more."""
    from auditor.audits.runs import find_run
    from auditor.errors import UsageError
    from auditor.ledger.claims import Claims
    from auditor.ledger.export import mend
    from auditor.ledger.ledger import Ledger, is_run

    folder = find_run(run, out_dir)
    if not is_run(folder):
        raise UsageError(f"{folder} is of a version without a ledger; nothing can be merged into it")
    with Ledger.open(folder) as ledger, Claims(folder) as claims:
        before = len(list(ledger.jobs.records()))
        paths = list(claims.ledgers())
        for path in paths:
            ledger.absorb(path)
        mend(ledger)
        taken = len(list(ledger.jobs.records())) - before
    err.print(f"{len(paths)} workers' ledgers; {taken} audits are new", style="dim", highlight=False)
