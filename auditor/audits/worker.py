"""A worker beside a run: it makes what nobody else has claimed, in a ledger of its own that the run takes over."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from auditor.audits.bench import Bench
from auditor.audits.jobs import JobSpec
from auditor.audits.limits import Meter
from auditor.audits.request import content_of, made_with
from auditor.audits.run import Sitting, by_pairs
from auditor.audits.shop import Shop, checkpoints
from auditor.config import Settings
from auditor.errors import BadFile, UsageError
from auditor.ledger.claims import WORKERS, Claim, Claims
from auditor.ledger.export import JOBS, RUN
from auditor.ledger.ledger import Ledger
from auditor.workspace import Workspace

ROLES = ("llm", "grader_llm", "lens_llm", "llm_roles", "grader_repeats", "embedder")  # that a run's request settles


def request_in(folder: Path) -> dict[str, Any]:
    """What the run in `folder` was asked for, as workers on any machine read it. Raises UsageError."""
    try:
        return dict(json.loads((folder / RUN).read_bytes()))
    except FileNotFoundError as error:
        raise UsageError(f"--join {folder}: no run lies there (no {RUN}); begin it with `auditor evaluate`") from error
    except (OSError, ValueError, TypeError) as error:
        raise BadFile(folder / RUN, "cannot be read: what the run was is not known") from error


def roles_of(request: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that all workers of a run must share."""
    return {role: request[role] for role in ROLES if role in request}


def work(
    folder: Path, workspace: Workspace, settings: Settings, sitting: Sitting, targets: Iterable[str] | None = None
) -> dict[str, int]:
    """Make what is left of a run, of these targets only if they are given. Returns how many audits ended, by state.

    Raises UsageError if the workspace here would make other audits than the run's.
    """
    jobs = _jobs_in(folder, None if targets is None else set(targets))
    _demand_same(jobs, workspace, settings)
    with Claims(folder, head=False) as claims, Ledger.beside(folder, claims.worker) as ledger:
        ledger.begin(request_in(folder), lambda: made_with(settings, workspace), resume=True)
        own = folder / WORKERS / f"{claims.worker}.checkpoints"
        with checkpoints(own, ledger) as saver:
            bench = Bench(workspace, settings, ledger.calls)
            shop = Shop(bench, ledger, saver, Meter(sitting.limit, ledger.calls), claims, sitting.workers, head=False)
            by_pairs([job for job in jobs if claims.whose(job.name) is not Claim.OTHERS], shop)
        ended = list(ledger.jobs.states().values())
    return {state: ended.count(state) for state in dict.fromkeys(ended)}


def _jobs_in(folder: Path, targets: set[str] | None) -> list[JobSpec]:
    path = folder / JOBS
    try:
        lines = path.read_text("utf-8").splitlines()
        if targets is not None:  # of 40,000 jobs an array's worker is there for forty
            lines = [line for line in lines if json.loads(line)["target"]["name"] in targets]
        return [JobSpec.model_validate_json(line) for line in lines]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadFile(path, "cannot be read; `auditor evaluate … --resume` writes it anew") from error


def _demand_same(jobs: Iterable[JobSpec], workspace: Workspace, settings: Settings) -> None:
    """Raises UsageError naming the prompts and plugins that differ from those that the run was begun with."""
    for agent, job in {job.agent.name: job for job in jobs}.items():
        here = content_of(workspace, job.evidence, settings, workspace.agents[agent])
        if changed := [name for name in {**here, **job.content} if here.get(name) != job.content.get(name)]:
            raise UsageError(f"this workspace is not the run's: {', '.join(changed)} differ, of agent {agent}")
