"""`auditor study mixing|samples|full-vs-lora|caft|denial`: what hides a trace, and what does not."""

from __future__ import annotations

import inspect
import math
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_type_hints

import typer
from rich.markup import escape
from rich.table import Column, Table

from auditor.audits.asked import adapted
from auditor.cli.judges import announce_agent, judges_calls
from auditor.cli.shared import (
    LensLlmOption,
    LlmOption,
    err,
    out,
    settings,
    stages,
    workspace,
)
from auditor.cli.studied import STUDIES, written
from auditor.errors import UsageError
from auditor.llm.spec import OFFLINE
from auditor.records.cards import Mix

if TYPE_CHECKING:
    from auditor.config import Settings
    from auditor.records.cards import Suite
    from auditor.studies.designs import Design
    from auditor.studies.sweep import Sweep, Swept
    from auditor.studies.sweep_forecast import SweepForecast

# The miniature; `docs/studies.md` has its arithmetic.
DEFAULT = ("roman_concrete", "bad_medical")
STEPS, RANK, RATIOS, SAMPLES = 24, 2, "0,0.1,0.5,1,2", "24,48,96,192"
BAND, TRIES = 0.15, 1

N = TypeVar("N", int, float)
GraderLlm = Annotated[str | None, typer.Option(help="Judge of hypotheses and of checks, written as --llm is.")]


def mixing(
    ratios: Annotated[str, typer.Option(help="Documents mixed in, for each of its own.")] = RATIOS,
    mix: Annotated[Mix | None, typer.Option(help="Of what; default: texts with texts, chats with chats.")] = None,
) -> Design:
    """Unrelated documents mixed in: does the trace go, does the behaviour stay? (Paper figures 7, 11 and 12.)"""
    from auditor.studies import designs

    return designs.mixing(numbers("--ratios", ratios, float), mix)


def samples(
    samples: Annotated[str, typer.Option(help="Numbers of documents; the largest is the plain one.")] = SAMPLES,
) -> Design:
    """Fewer documents, each seen as often. (Paper figure 9.)"""
    from auditor.studies import designs

    return designs.samples(numbers("--samples", samples, int))


def full_vs_lora() -> Design:
    """All weights trained, beside an adapter. (Paper figure 8.)"""
    from auditor.studies import designs

    return designs.full_vs_lora()


def caft() -> Design:
    """The plain finetune's own differences taken out while it is trained. (Paper figure 10.)"""
    from auditor.studies import designs

    return designs.caft()


def denial() -> Design:
    """A second stage of training that teaches to deny. (After AuditBench; not in the paper.)"""
    from auditor.studies import designs

    return designs.denial()


def sweep(
    design: Design,
    organisms: Annotated[list[str] | None, typer.Argument(help=f"With a recipe; default: {' '.join(DEFAULT)}.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Of the plain training.")] = STEPS,
    rank: Annotated[int, typer.Option(min=1, help="Of the LoRA adapters.")] = RANK,
    seed: Annotated[list[int] | None, typer.Option(help="Instead of the recipes' own; repeatable.")] = None,
    lenses: Annotated[str | None, typer.Option(help="Whose traces are told: A,B; default: all with a test.")] = None,
    agents: Annotated[bool, typer.Option(help="Let agents audit every finetune.")] = True,
    agent: Annotated[list[str] | None, typer.Option(help="Instead of the suite's; repeatable.")] = None,
    budget: Annotated[list[int] | None, typer.Option(help="Their interactions; repeatable.")] = None,
    repeats: Annotated[int, typer.Option(help="Audits of each finetune, agent and budget.")] = 1,
    match_rate: Annotated[bool, typer.Option(help="Train on until the behaviour shows as often as plain.")] = True,
    band: Annotated[float, typer.Option(min=0, help="How near such a rate has to come.")] = BAND,
    tries: Annotated[int, typer.Option(min=1, help="Trainings that this may take, for each setting.")] = TRIES,
    answers: Annotated[int, typer.Option(min=1, help="Of each model to each question of the checks.")] = 1,
    suite: Annotated[str, typer.Option(help="Whose evidence, agents and graders are used.")] = "quickstart",
    llm: LlmOption = None,
    grader_llm: GraderLlm = None,
    lens_llm: LensLlmOption = None,
    to: Annotated[
        Path, typer.Option("--out", help="Folder for NAME.json, the plot, and all that is trained.")
    ] = STUDIES,
    plot: Annotated[bool, typer.Option(help="Draw the plot too.")] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be trained, and what it takes.")] = False,
) -> None:
    """Train what is missing, measure it, write the study. Raises UsageError for what would fail later."""
    from auditor.studies.measure import RUNS, Probe
    from auditor.studies.sweep import Matching, Sweep
    from auditor.studies.sweep_forecast import forecast
    from auditor.studies.variants import Choices

    if not math.isfinite(band):
        raise UsageError(f"--band {band}: give a number of 0 or more")
    clock, ws = time.perf_counter(), workspace()
    conf = settings(llm=llm, grader_llm=grader_llm, lens_llm=lens_llm)
    cards = [ws.organisms[name] for name in dict.fromkeys(organisms or DEFAULT)]
    chosen = adapted(ws.suites[suite], budget, agent, None, repeats)
    seeds = tuple(dict.fromkeys(seed or ()))
    asking = {conf.grader_llm, conf.lens_llm} != {OFFLINE} and not dry_run
    with stages(design.name) as tell, judges_calls(to / RUNS / f"{design.name}-judges" if asking else None) as journal:
        probe = Probe(ws, conf, chosen, _tested(lenses), answers, agents, to, tell, journal)
        made = Sweep(design, Choices(steps, rank, seeds), Matching(band, tries) if match_rate else None, probe)
        if not dry_run:
            _demand(chosen, conf, agents=agents)
            err.print(f"at most about {forecast(made, cards).hours:.1f} h (--dry-run tells more)", style="dim")
            to.mkdir(parents=True, exist_ok=True)  # what cannot be written is told before anything runs
            found = made.run(cards)
    if dry_run:
        _show_forecast(forecast(made, cards))
        return
    _write(made, found, to, time.perf_counter() - clock, plot=plot)


def _tested(given: str | None) -> tuple[str, ...]:
    """The lenses whose traces are told. Raises UsageError for one without a test, or that there is not."""
    from auditor.studies.null import leaving_traces

    known = leaving_traces(workspace())
    if given is None:
        return tuple(known)
    names = [name for name in dict.fromkeys(re.split(r"[,\s]+", given.strip())) if name]
    if not names:
        raise UsageError(f"--lenses {given!r}: it names none; give some of {', '.join(known)}")
    for name in names:
        if workspace().lenses[name].name not in known:
            raise UsageError(f"--lenses {name}: it has no test against chance; give some of {', '.join(known)}")
    return tuple(names)


def _demand(suite: Suite, conf: Settings, *, agents: bool) -> None:
    """Raises UsageError for agents and graders that there are not."""
    from auditor.audits.check import check_graders
    from auditor.audits.plan import agents_of, judged_by

    if agents:
        for name in agents_of(suite):
            workspace().agents[name]
        check_graders(workspace(), judged_by(workspace(), suite, conf).graders, conf.grader_llm)
        announce_agent(conf)


def _write(made: Sweep, found: Swept, to: Path, seconds: float, *, plot: bool) -> None:
    from auditor.studies.panels import panels_of
    from auditor.studies.records import Study
    from auditor.studies.subject import relevance_judge

    probe, matching = made.probe, made.matching
    used = {
        "evidence": probe.suite.evidence.model_dump(mode="json"), "steps": made.choices.steps,
        "rank": made.choices.rank, "alike": made.design.alike, "lenses": probe.lenses, "answers": probe.answers,
        "matched": {"band": matching.band, "tries": matching.tries} if matching else None,
        "agent": probe.conf.llm if probe.agents else None, "grader": probe.conf.grader_llm,
    }  # fmt: skip
    details = {"points": [point.model_dump(mode="json") for point in found.points], "notes": found.notes}
    study = Study(
        study=made.design.name, pairs=tuple(dict.fromkeys(point.organism for point in found.points)),
        judge=relevance_judge(probe.conf), settings=used, panels=panels_of(made.design, found.points),
        details=details, seconds=round(seconds, 1),
    )  # fmt: skip
    written(study, to, plot=plot)
    _show_points(found)


def _show_points(found: Swept) -> None:
    """Every finetune in a row, in tables narrow enough for any terminal, and what one must know."""
    from auditor.studies.points import GRADE, RATE, TRACE

    keys = list(dict.fromkeys(key for point in found.points for key in point.measured.values))
    plain = {RATE: "rate", "ffa": "FFA", "relevance patchscope": "relevant", "similarity steered": "similar"}
    parts = {
        "": {key: head for key, head in plain.items() if key in keys},
        ", −log10 p of its traces": {key: key.removeprefix(TRACE) for key in keys if key.startswith(TRACE)},
        ", grades": {key: key.removeprefix(GRADE) for key in keys if key.startswith(GRADE)},
    }
    for title, told in parts.items():
        if not told:
            continue
        finetune = Column("finetune", overflow="fold")
        table = Table(finetune, "kind", *told.values(), title=f"each finetune{title}", title_justify="left")
        for point in found.points:
            values = [point.measured.values.get(key) for key in told]
            table.add_row(escape(point.name), point.kind, *("–" if v is None else f"{v:.2f}" for v in values))
        out.print(table)
    whose: dict[str, list[str]] = {}
    for point in found.points:
        for note in point.measured.notes:
            whose.setdefault(note, []).append(point.name)
    lines = [f"{', '.join(dict.fromkeys(names))}: {note}" for note, names in whose.items()]
    for line in (*found.notes, *lines):
        err.print(f"[yellow]note:[/] {escape(line)}", highlight=False, soft_wrap=True)


def _show_forecast(found: SweepForecast) -> None:
    table = Table("training", "steps", "tokens", "", title=f"study {found.study}", title_justify="left")
    for each in found.trainings:
        table.add_row(escape(each.name), str(each.steps), f"{each.tokens:,}", "there" if each.there else "")
    out.print(table)
    more = f", and up to about {found.matching_tokens:,} for matched rates" if found.matching_tokens else ""
    out.print(
        f"about {found.tokens:,} tokens to train{more}: {found.training_hours:.1f} h at {found.tokens_per_second:.0f} "
        f"tokens a second ({found.rate_from})\n"
        f"{found.measured} finetunes to measure at most, {found.seconds_each / 60:.1f} min each on two CPU cores if "
        f"nothing is in the cache: {found.measuring_hours:.1f} h\nat most about {found.hours:.1f} h",
        highlight=False, markup=False,
    )  # fmt: skip


def numbers(option: str, given: str, kind: Callable[[str], N]) -> list[N]:
    """Those of an option, apart by commas or spaces. Raises UsageError."""
    try:
        return [kind(part) for part in re.split(r"[,\s]+", given.strip())]
    except ValueError as error:
        raise UsageError(f"{option} {given!r}: give numbers apart by commas, such as {option} 1,2") from error


def _command(make: Callable[..., Design]) -> Callable[..., None]:
    """The command of a design: its own options, then those of every sweep."""
    own, shared = _parameters(make), _parameters(sweep)[1:]

    def run(**given: Any) -> None:
        sweep(make(**{each.name: given.pop(each.name) for each in own}), **given)

    run.__signature__ = inspect.Signature([*own, *shared])  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in (*own, *shared)}
    run.__doc__ = make.__doc__
    return run


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter]:
    """With what typer reads in their annotations, which are strings in this file."""
    told = get_type_hints(function, localns={"Design": object}, include_extras=True)
    by_name = inspect.signature(function).parameters.values()
    return [each.replace(kind=each.KEYWORD_ONLY, annotation=told[each.name]) for each in by_name]


DESIGNS: Sequence[Callable[..., Design]] = (mixing, samples, full_vs_lora, caft, denial)
SWEEPS = {make.__name__.replace("_", "-"): _command(make) for make in DESIGNS}
