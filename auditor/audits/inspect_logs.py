"""A run as logs of inspect_ai, one for each agent and budget, with a sample for each audit (extra `inspect`)."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from inspect_ai.log import (
    EvalConfig,
    EvalDataset,
    EvalError,
    EvalLog,
    EvalRevision,
    EvalSample,
    EvalSpec,
    EvalStats,
    recompute_metrics,
    write_eval_log,
)
from inspect_ai.model import GenerateConfig, ModelConfig
from inspect_ai.scorer import Score

from auditor.audits.inspect_samples import clean, iso, sample, scores, usage
from auditor.audits.jobs import JobSpec
from auditor.audits.request import without_user
from auditor.errors import UsageError
from auditor.files import replacing
from auditor.ledger.calls import ModelUse
from auditor.ledger.jobs import Cell
from auditor.ledger.ledger import Ledger, is_run
from auditor.llm.spec import OFFLINE, parse_spec
from auditor.records.results import AuditRecord

LOGS = "logs"
MOST = 1000  # samples of a log
MEAN, ERROR = "inspect_ai/mean", "inspect_ai/stderr"  # over organisms, of the mean over repeats


def write_logs(run: Path, to: Path) -> list[Path]:
    """`logs/AGENT-bBUDGET.eval`, by inspect's own writer. Raises UsageError for an old run, BadFile."""
    if not is_run(run):
        raise UsageError(f"{run} is of a version without a ledger: there is no more of it than auditor show prints")
    written = []
    with Ledger.read(run) as ledger:
        begun, uses = ledger.events.begun(), ledger.calls.by_model()
        if not (cells := ledger.jobs.cells()):
            raise UsageError(f"{run} has no audits yet")
        for cell in cells:
            parts = list(_parts(cell))
            for number, part in enumerate(parts, 1):
                place = f"{number} of {len(parts)}" if len(parts) > 1 else ""
                path = to / LOGS / f"{cell.agent}-b{cell.budget}{f'-part{number}' if place else ''}.eval"
                log = _log(ledger, part, uses, place)
                # Each sample is made when its turn comes, and none before.
                log.samples = Samples(names_of(part), lambda n: _sample(ledger, n, uses.get(n, []), begun.get(n)))
                with replacing(path) as file:
                    write_eval_log(log, file, format="eval")
                written.append(path)
    return written


def _parts(cell: Cell) -> Iterator[Cell]:
    """The audits of a cell, as many as one log may hold: inspect keeps a log that it writes in memory. All of a target
    are in one, unless these alone are too many; what has not ended is counted in the first.
    """
    part = Cell(cell.agent, cell.budget, {}, cell.open)
    for target, names in cell.ended.items():
        for some in (names[i : i + MOST] for i in range(0, len(names), MOST)):
            if part.ended and len(names_of(part)) + len(some) > MOST:
                yield part
                part = Cell(cell.agent, cell.budget, {})
            part.ended[target] = some
    yield part


def names_of(cell: Cell) -> list[str]:
    """The audits that have ended."""
    return [name for names in cell.ended.values() for name in names]


class Samples(list[EvalSample]):
    """What inspect writes one after another, made as it goes: a list, for that is what a log holds."""

    def __init__(self, names: Sequence[str], made: Callable[[str], EvalSample]) -> None:
        super().__init__()
        self._names, self._made = names, made

    def __iter__(self) -> Iterator[EvalSample]:
        return map(self._made, self._names)

    def __len__(self) -> int:
        return len(self._names)


def _sample(ledger: Ledger, name: str, uses: Sequence[ModelUse], begun: float | None) -> EvalSample:
    told = {**ledger.transcripts.about(name), "messages": ledger.transcripts.messages(name)}
    return sample(JobSpec.model_validate_json(ledger.jobs.spec(name)), _record(ledger, name), told, uses, begun)


def _record(ledger: Ledger, name: str) -> AuditRecord:
    record = ledger.jobs.record(name)
    assert record is not None
    return record


def _log(ledger: Ledger, cell: Cell, uses: Mapping[str, list[ModelUse]], place: str) -> EvalLog:
    """The log of one agent at one budget: all but its samples. `place`: among several logs of these."""
    names = names_of(cell)
    graders, brief, repeats = defaultdict[str, set[str]](set), list[EvalSample](), 1
    for name in names:
        record = _record(ledger, name)
        brief.append(_brief(record))
        for grader in brief[-1].scores or ():
            graders[grader].add(record.organism)
        repeats = max(repeats, record.repeat + 1)
    asked = ledger.request() or {}
    spec = _spec(ledger, cell, asked, {grader: len(graded) for grader, graded in graders.items()}, place)
    suite, organisms = asked.get("suite", {}).get("name", ""), list(cell.ended)
    spec.dataset = EvalDataset(name=suite, samples=len(organisms), sample_ids=organisms)
    spec.config = EvalConfig(epochs=repeats, epochs_reducer=["mean"], fail_on_error=False)
    used = [use for name in names for use in uses.get(name, [])]
    stats = EvalStats(
        started_at=spec.created, completed_at=iso(ledger.jobs.heard_of(names)) if names else "",
        model_usage=usage(used, lambda use: use.model), role_usage=usage(used, lambda use: use.role),
    )  # fmt: skip
    log = EvalLog(status="success" if cell.open == 0 else "cancelled", eval=spec, stats=stats, samples=brief)
    recompute_metrics(log)
    assert log.results is not None
    log.results.total_samples += cell.open
    return log


def _brief(record: AuditRecord) -> EvalSample:
    """What inspect's metrics are taken of."""
    found = scores(record)
    lean = None if found is None else {name: Score(value=score.value) for name, score in found.items()}
    error = None if lean is not None else EvalError(message=record.status, traceback="", traceback_ansi="")
    return EvalSample(id=record.organism, epoch=record.repeat + 1, input="", target="", scores=lean, error=error)


def _spec(ledger: Ledger, cell: Cell, asked: Mapping[str, Any], graders: Mapping[str, int], place: str) -> EvalSpec:
    """Who audited with what, and who judged how many organisms."""
    suite, name, made_with = asked.get("suite", {}), ledger.folder.resolve().name, ledger.made_with()
    agent = _model(str(asked.get("llm", "")))
    found = made_with.get("revision")
    return EvalSpec(
        run_id=_id(name, str(ledger.begun())),
        eval_id=_id(name, str(ledger.begun()), cell.agent, str(cell.budget), place),
        task_id=_id(str(suite.get("name", "")), cell.agent, str(cell.budget), place),
        created=iso(ledger.begun()),
        task=f"{suite.get('name') or 'audit'}-{cell.agent}-b{cell.budget}",
        task_display_name=f"{cell.agent}, {cell.budget} interactions{f' ({place})' if place else ''}",
        solver=cell.agent,
        solver_args={"budget": cell.budget, "protocol": asked.get("protocol")},
        dataset=EvalDataset(),
        model=agent.model,
        model_generate_config=agent.config,
        model_base_url=agent.base_url,
        model_roles=_roles(asked, graders),
        config=EvalConfig(),
        revision=EvalRevision(type="git", **found) if found else None,
        packages={str(key): str(value) for key, value in made_with.get("versions", {}).items()},
        metadata=clean({
            "run": name, "suite": suite.get("name"), "seed": asked.get("seed"), "graders": asked.get("graders"),
            "code": made_with.get("code"), "not_ended": cell.open, "part": place or None,
        }),
        scorers=[{"name": grader, "metrics": [{"name": each} for each in (MEAN, ERROR)[: min(count, 2)]]}
                 for grader, count in graders.items()],  # inspect calls the error of one organism 0
    )  # fmt: skip


def _roles(asked: Mapping[str, Any], graders: Iterable[str]) -> dict[str, ModelConfig | list[ModelConfig]]:
    """Models by role; the judges are the run's, and those that graded it later (`GRADER@MODEL`)."""
    judges = dict.fromkeys((str(asked.get("grader_llm", OFFLINE)), *(g.partition("@")[2] for g in graders if "@" in g)))
    judge = [_model(each) for each in judges]
    return {
        "agent": _model(str(asked.get("llm", OFFLINE))),
        "judge": judge[0] if len(judge) == 1 else list(judge),
        "lens": _model(str(asked.get("lens_llm", OFFLINE))),
    }


def _model(llm: str) -> ModelConfig:
    """A model as `--llm` names it, without where its key lies."""
    if llm in ("", OFFLINE):
        return ModelConfig(model=OFFLINE)
    spec = parse_spec(llm)
    config = GenerateConfig(
        temperature=spec.temperature, max_tokens=spec.max_tokens, reasoning_effort=spec.effort,
        max_connections=spec.concurrency, timeout=round(spec.timeout), max_retries=spec.attempts - 1,
    )  # fmt: skip
    return ModelConfig(
        model=clean(spec.name), config=config, base_url=without_user(spec.base_url) if spec.base_url else None
    )


def _id(*parts: str) -> str:
    """The same for the same run, so that an export made anew takes the place of the older one everywhere."""
    return hashlib.sha256("\n".join(parts).encode("utf-8", "backslashreplace")).hexdigest()[:22]
