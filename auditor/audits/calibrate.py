"""How far a judge can be trusted: measured on labelled hypotheses, kept in a workspace, told in every table."""

from __future__ import annotations

import hashlib
import platform
import queue
import re
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import auditor
from auditor.audits.bench import Bench
from auditor.audits.check import check_graders
from auditor.audits.labels import Labelled, labellers_of, sha256_of_labels
from auditor.comparison.scores import Run
from auditor.config import Settings
from auditor.criteria import check_rubric
from auditor.errors import AuditorError, BadFile, GraderFailed, InternalError, UsageError
from auditor.evidence.sources import closure_hash
from auditor.files import sha256_of
from auditor.ledger.database import LedgerBroken
from auditor.llm.failures import EndpointUnusable
from auditor.llm.spec import OFFLINE, parse_spec
from auditor.llm.verdict import NoVerdict
from auditor.records.calibration import Calibration
from auditor.records.findings import Grade
from auditor.text import visible
from auditor.workspace import Workspace

GATE = 0.6
"""What the lower end of kappa's 95 % interval must reach. From 0.6 on, agreement is by custom called substantial
(Landis and Koch, 1977). The lower end is asked, not the value: twenty lucky labels are to let nobody through, and who
stands below it for want of labels can label more. The paper gives no number."""

NOT_CALIBRATED, UNDER, STALE = "not calibrated", "UNDER THE GATE", "stale"
TELLING = 0.5  # levels: a judge that is so much too high or too low, on average, is said to be
PACKAGES = ("scikit-learn", "scipy", "sentence-transformers", "langchain-core")


@dataclass(frozen=True, slots=True)
class Judged:
    """A judge's verdicts by the hypothesis' place; why it gave none, and on which it could not be asked."""

    grades: dict[int, Grade] = field(default_factory=dict)
    without: dict[str, str] = field(default_factory=dict)
    unasked: dict[str, str] = field(default_factory=dict)


def trust_in(ws: Workspace, grader: str, llm: str, asked: Mapping[str, Any] | None = None) -> str:
    """One line for tables: how far the verdicts of `grader`, asked of `llm`, can be trusted. Raises nothing.

    `grader` may be the name that verdicts of another judge are kept under, GRADER@MODEL. `asked`: the request of the
    run that the verdicts are of, whose prompts, rubrics and number of verdicts have to be the calibration's, too.
    """
    grader, beside, other = grader.partition("@")
    try:
        name = calibration_name(ws, grader, other or llm)
        found = ws.calibrations[name] if name in ws.calibrations.by_name() else None
        if found is None or (found.grader, found.llm) != (grader, model_of(ws, grader, other or llm)):
            return NOT_CALIBRATED
        changed = _changed(ws, found)
    except UsageError as error:
        return f"{NOT_CALIBRATED}: {visible(str(error))}"
    if asked and not beside:  # what judged beside the run's own graders came later
        changed += [name for name in _unlike(found, asked) if name not in changed]
    if changed:
        return f"{STALE}, calibrated with another {', '.join(changed)}: {_figures(found)}"
    used = sorted(_part(asked or {}, "rubrics"))
    strange = [name for name in used if f"rubric {name}" not in found.made_of]
    return "; ".join([
        line_of(found), *_weak(found, used), *([f"no label is by rubric {', '.join(strange)}"] if strange else ()),
    ])  # fmt: skip


def _weak(found: Calibration, used: Iterable[str]) -> Iterable[str]:
    """Rubrics of the run by which the judge agrees less than the gate asks for, whatever it does on the whole."""
    for name in used:
        fit = found.rubrics.get(name)
        if fit and fit.kappa is not None and fit.kappa < GATE:
            yield f"by rubric {name} kappa {fit.kappa:.2f} on {fit.n}"


def trust_of(ws: Workspace) -> Callable[[Run, str], str]:
    """The same for a grader of a run that is compared."""
    return lambda run, grader: trust_in(ws, grader, str(run.request.get("grader_llm") or OFFLINE), run.request)


def line_of(calibration: Calibration) -> str:
    """What tables say of a judge that is as it was calibrated."""
    figures = _figures(calibration)
    if passes(calibration):
        return f"calibrated: {figures}"
    return f"{UNDER}: {figures}; the interval must begin at {GATE:g} or above"


def passes(calibration: Calibration) -> bool:
    """Whether the judge's whole interval lies above the gate."""
    return calibration.ci95 is not None and calibration.ci95[0] >= GATE


def _figures(calibration: Calibration) -> str:
    fit, ends = calibration.fit, calibration.ci95
    kappa = "undefined" if fit.kappa is None else f"{fit.kappa:.2f}"
    told = f"kappa {kappa} ({f'{ends[0]:.2f} to {ends[1]:.2f}' if ends else 'no interval'}) on {fit.n} labels"
    if calibration.labellers:
        told += f" by {visible(', '.join(calibration.labellers), 60)}"
    if abs(fit.mean_error) >= TELLING:
        told += f", {abs(fit.mean_error):.1f} too {'high' if fit.mean_error > 0 else 'low'}"
    return told + (f", {len(calibration.without)} without a verdict" if calibration.without else "")


def model_of(ws: Workspace, grader: str, llm: str) -> str:
    """Who judges, with what decides its answers and nothing else; `offline` for graders that ask no LLM."""
    if not ws.graders[grader].llm or llm == OFFLINE:
        return OFFLINE
    spec = parse_spec(llm)
    options = spec.model_dump(include={"effort", "temperature", "max_tokens"}, exclude_none=True)
    return spec.name + ("?" + "&".join(f"{key}={value}" for key, value in options.items()) if options else "")


def calibration_name(ws: Workspace, grader: str, llm: str) -> str:
    """The name of its file: GRADER@MODEL in characters that every file system takes, or GRADER."""
    model = model_of(ws, grader, llm)
    return grader if model == OFFLINE else re.sub(r"[^\w.=+@-]", "-", f"{grader}@{model}".replace("/", "+"))


def made_of(ws: Workspace, grader: str, rubrics: Iterable[str]) -> dict[str, str]:
    """Hashes of what decides its verdicts beside the hypothesis and the model. Raises UsageError."""
    known, path = ws.graders[grader], ws.graders.items[grader].path
    found = {"source": closure_hash(path), "file": sha256_of(path)}
    if known.llm:
        names = sorted(name for name in (*ws.prompts.items, *ws.prompts.broken) if name.startswith("grade_"))
        found |= {f"prompt {name}": _sha256(ws.prompts[name].source) for name in names}
    wanted = sorted(name for name in rubrics if ws.rubrics[name])
    return found | {f"rubric {name}": _sha256(ws.rubrics.items[name].path.read_text("utf-8")) for name in wanted}


def _changed(ws: Workspace, found: Calibration) -> list[str]:
    """What is another now than when it was calibrated."""
    rubrics = [name.removeprefix("rubric ") for name in found.made_of if name.startswith("rubric ")]
    now = made_of(ws, found.grader, [name for name in rubrics if name in ws.rubrics.by_name()])
    changed = [name for name in {**found.made_of, **now} if found.made_of.get(name) != now.get(name)]
    return [name for name in changed if name != "file" or "source" not in changed]


def _unlike(found: Calibration, asked: Mapping[str, Any]) -> list[str]:
    """What a run says that it was judged with, and that is not the calibration's. Runs of old tell less."""
    told = {"file": _part(asked, "plugins").get(found.grader)}
    for kind in ("prompt", "rubric"):
        told |= {f"{kind} {name}": value for name, value in _part(asked, f"{kind}s").items()}
    hashes = {name: value.get("sha256") for name, value in told.items() if isinstance(value, dict)}
    unlike = [name for name, sha256 in hashes.items() if found.made_of.get(name, sha256) != sha256]
    if asked.get("embedder", found.embedder) != found.embedder:
        unlike.append("embedder")
    if found.repeats is not None and (repeats := asked.get("grader_repeats", found.repeats)) != found.repeats:
        unlike.append(f"number of verdicts ({found.repeats}, here {repeats})")
    return unlike


def _part(asked: Mapping[str, Any], name: str) -> dict[str, Any]:
    part = asked.get(name)
    return part if isinstance(part, dict) else {}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def check_calibration(ws: Workspace, graders: Sequence[str], labels: Sequence[Labelled], path: Path, llm: str) -> None:
    """Raises UsageError for graders and rubrics that cannot judge these hypotheses, before anything is paid."""
    check_graders(ws, graders, llm)
    seen = set[str]()
    for each in labels:
        if each.card.name in seen:
            continue
        seen.add(each.card.name)
        try:
            rubric = ws.rubrics[each.card.grading]
            check_rubric(rubric)
            for fits in filter(None, (ws.graders[name].fits for name in graders)):
                fits(each.card, rubric)
        except UsageError as error:
            raise BadFile(
                path, f"{error}; leave out the labels of {each.card.name}, or the grader", each.line
            ) from error


def judge_labels(
    labels: Sequence[Labelled], grader: str, bench: Bench, workers: int, tell: Callable[[int], None] = lambda done: None
) -> Judged:
    """The verdicts of one grader, several asked for at once; `tell` is given how many are done.

    What is answered is in the bench's journal at once. Raises UsageError if the judge can answer nothing at all,
    LedgerBroken, InternalError.
    """
    llm = bench.settings.grader_llm
    judge, context = bench.workspace.graders[grader].run, bench.grading(None, llm)
    found, problems, unusable = Judged(), list[AuditorError](), list[EndpointUnusable]()
    pending: queue.SimpleQueue[int] = queue.SimpleQueue()
    for place in range(len(labels)):
        pending.put(place)

    def one(place: int) -> None:
        item = labels[place]
        try:
            found.grades[place] = judge(item.record(), item.card, bench.workspace.rubrics[item.card.grading], context)
        except LedgerBroken:
            raise
        except (NoVerdict, GraderFailed) as error:
            found.without[item.told_as] = str(error)
        except EndpointUnusable as error:
            unusable.append(error)
            found.unasked[item.told_as] = str(error)
        except AuditorError as error:  # nobody there, no money: it may be asked another time
            found.unasked[item.told_as] = str(error)

    def work() -> None:
        while not problems:
            try:
                one(pending.get_nowait())
            except queue.Empty:
                return
            except LedgerBroken as error:
                problems.append(error)
            except Exception as error:  # a bug of ours
                problems.append(InternalError(f"internal error: {error!r}\n{traceback.format_exc()}"))
            tell(len(found.grades) + len(found.without) + len(found.unasked))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(workers, len(labels)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise problems[0]
    if unusable and not (found.grades or found.without):
        raise UsageError(f"the grader's model {model_of(bench.workspace, grader, llm)}: {unusable[0]}")
    return found


def calibration_of(
    labels: Sequence[Labelled], path: Path, grader: str, judged: Judged, ws: Workspace, settings: Settings
) -> Calibration:
    """What the verdicts come to beside the labels. Raises UsageError if there is none."""
    from auditor.audits.agreement import confusion_of, fit_of, interval_of, labellers_agree, repeated_of

    places = sorted(judged.grades)
    if not places:
        raise UsageError(f"grader {grader} gave no verdict at all: {next(iter(judged.without.values()), 'no labels')}")
    truth, scores = [labels[i].label for i in places], [judged.grades[i].score for i in places]
    fit, rubrics = fit_of(truth, scores), dict.fromkeys(labels[i].card.grading for i in places)
    by_rubric = {name: [n for n, i in enumerate(places) if labels[i].card.grading == name] for name in rubrics}
    told = (verdicts_of(judged.grades[i]) for i in places)
    return Calibration(
        name=calibration_name(ws, grader, settings.grader_llm),
        grader=grader,
        llm=model_of(ws, grader, settings.grader_llm),
        labels=path.name,
        labels_sha256=sha256_of_labels(labels),
        labellers=labellers_of(labels),
        agreement=labellers_agree(labels),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={"auditor": auditor.__version__, "python": platform.python_version(),
                  **{name: version(name) for name in PACKAGES}},
        made_of=made_of(ws, grader, {each.card.grading for each in labels}),
        embedder=settings.embedder,
        repeats=settings.grader_repeats if ws.graders[grader].llm else None,
        fit=fit,
        ci95=interval_of(truth, scores) if fit.kappa is not None else None,
        confusion=confusion_of(truth, scores),
        rubrics={name: fit_of([truth[n] for n in mine], [scores[n] for n in mine]) for name, mine in by_rubric.items()},
        itself=repeated_of([each for each in told if each]),
        without=judged.without,
    )  # fmt: skip


def verdicts_of(grade: Grade) -> list[float]:
    """The single verdicts that a grade is the mean of, as its `details` tell under `scores`."""
    scores = grade.details.get("scores")
    known = isinstance(scores, list) and all(isinstance(s, int | float) and 1 <= s <= 5 for s in scores)
    return list(scores) if isinstance(scores, list) and known else []
