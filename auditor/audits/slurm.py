"""`--engine slurm`: an array of jobs, one for each pair, that are workers beside the run (extra `slurm`, submitit)."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from auditor.audits.jobs import JobSpec
from auditor.audits.limits import Most
from auditor.audits.run import WAIT, Engine, Sitting
from auditor.audits.shop import Shop
from auditor.errors import UsageError
from auditor.ledger.jobs import ENDED

ROUNDS = 3  # that a pair's jobs are submitted, if their process dies before they have ended


def engine(parameters: Mapping[str, Any], sitting: Sitting, root: Path | None) -> Engine:
    """An engine that submits to Slurm, or runs processes on this machine where there is no `sbatch`.

    `parameters`: submitit's, such as `slurm_partition`. Raises UsageError if submitit is missing or takes them not, and
    for a limit of the run: each job knows only what it took itself.
    """
    try:
        import submitit
    except ImportError as error:
        raise UsageError("--engine slurm needs submitit: pip install 'auditor-adl[slurm]'") from error
    if sitting.limit != Most():
        raise UsageError("--engine slurm: a limit of the run cannot be held over an array's jobs; give N/audit")
    cluster = "slurm" if shutil.which("sbatch") else "local"

    def run(jobs: Sequence[JobSpec], shop: Shop) -> None:
        if cluster == "local":
            told = "no sbatch here: the array's jobs run as processes of this machine"
            shop.ledger.events.tell("note", target="slurm", text=told)
        executor = submitit.AutoExecutor(folder=shop.ledger.folder / "slurm", cluster=cluster)
        try:
            executor.update_parameters(name="auditor", **({"timeout_min": 24 * 60} | dict(parameters)))
        except (NameError, TypeError, ValueError) as error:
            raise UsageError(f"--slurm: {' '.join(str(error).split())[:200]}") from error
        left = list(dict.fromkeys(job.target.name for job in jobs))
        for _ in range(ROUNDS):
            folder, settings = str(shop.ledger.folder.resolve()), shop.bench.settings.model_dump()
            given = [(folder, root, settings, sitting, [name]) for name in left]
            tasks = executor.map_array(worker, *zip(*given, strict=True))
            problems = _wait(dict(zip(left, tasks, strict=True)), shop)
            states = shop.ledger.jobs.states()
            left = list(dict.fromkeys(job.target.name for job in jobs if states[job.name] not in ENDED))
            if not left or shop.meter.gone():
                return
        raise UsageError(f"slurm: {', '.join(left)}: {problems or 'their jobs died'}; logs are in {executor.folder}")

    return run


def _wait(tasks: Mapping[str, Any], shop: Shop) -> str:
    """Until all have ended, taking over what they do. Returns why one failed, if one did."""
    problem = ""
    for task in tasks.values():
        while not task.done():
            time.sleep(WAIT)
            shop.absorb()
    shop.absorb()
    for name, task in tasks.items():
        if (error := task.exception()) is not None:
            lines = [line for line in str(error).splitlines() if line.strip()]
            problem = lines[-1] if lines else type(error).__name__
            shop.ledger.events.tell("note", target=name, text=f"its job failed: {problem}")
    return problem


def worker(
    folder: str, root: Path | None, settings: dict[str, Any], sitting: Sitting, targets: list[str]
) -> dict[str, int]:
    """What one job of the array does."""
    from auditor.runtime import quiet_libraries, tune_process

    tune_process()
    quiet_libraries()
    from auditor import telemetry
    from auditor.audits.worker import work
    from auditor.config import Settings
    from auditor.workspace import load_workspace

    telemetry.start()
    return work(Path(folder), load_workspace(root), Settings(**settings), sitting, targets)
