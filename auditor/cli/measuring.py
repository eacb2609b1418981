"""How every study of organisms that are there is run: opened one after another, measured, written."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from auditor.cli.shared import announce, stages, workspace
from auditor.cli.studied import written
from auditor.config import Settings
from auditor.errors import UsageError
from auditor.records.cards import EvidenceSettings
from auditor.studies.records import Panel, Study

if TYPE_CHECKING:
    from auditor.evidence.compute import Report
    from auditor.studies.subject import Subject

Made = tuple[tuple[Panel, ...], dict[str, object]]


def given_data(told: Sequence[str], organisms: Collection[str]) -> dict[str, str]:
    """By organism. Raises UsageError for what is not ORGANISM=WHERE, or about another organism."""
    found = {}
    for each in told:
        name, equals, where = each.partition("=")
        if not equals or not where or name not in organisms:
            raise UsageError(f"--data {each}: give ORGANISM=WHERE, for one of {', '.join(organisms)}")
        found[name] = where
    return found


def without_data(unknown: Sequence[str]) -> list[str]:
    if not unknown:
        return []
    return [
        f"{', '.join(unknown)}: what it was trained on is not known; its tokens were judged by its description alone"
    ]


def evidence_of(suite: str, corpus: str | None) -> EvidenceSettings:
    chosen = workspace().suites[suite].evidence
    return chosen.model_copy(update={"corpus": corpus or chosen.corpus})


def run_study(
    name: str,
    organisms: Sequence[str],
    evidence: EvidenceSettings,
    conf: Settings,
    make: Callable[[Iterable[Subject], Report], Made],
    to: Path,
    *,
    plot: bool,
    judge: str = "",
    more: dict[str, object] | None = None,
    notes: Callable[[dict[str, Any]], Sequence[str]] = lambda details: (),
    data: Sequence[str] | None = None,
    needs_data: bool = True,
    base: str | None = None,
    about: str = "",
) -> None:
    """Open the pairs, make the study, write its JSON and its plot. `base`, `about`: of those that are no organisms."""
    from auditor.audits.bench import Bench, lens_calls
    from auditor.audits.named import card_named
    from auditor.studies.subject import has_data, subject_of

    names = list(dict.fromkeys(organisms))
    # A wrong name is told before anything runs.
    cards = [card_named(workspace(), conf, organism, base, about) for organism in names]
    own = given_data(data or (), names)
    if twice := [card.name for card in cards if [other.name for other in cards].count(card.name) > 1]:
        raise UsageError(f"two of these are called {twice[0]}, by their last folders: rename one")
    given = dict(zip((card.name for card in cards), map(own.get, names), strict=True))
    unknown = [card.name for card in cards if not has_data(card, given[card.name])]
    if lost := [card.name for card in cards if card.name in unknown and not card.description]:
        raise UsageError(f"nobody says what {lost[0]} was finetuned for: give --data {lost[0]}=WHERE, or --about")
    if unknown and needs_data:
        raise UsageError(
            f"nobody says what {', '.join(unknown)} was trained on: its card has no `train:` and no `dataset:`; give "
            f"--data {unknown[0]}=WHERE"
        )
    to.mkdir(parents=True, exist_ok=True)  # what cannot be written is told before anything runs
    clock = time.perf_counter()
    announce(evidence, ("patchscope", "steering"), conf)
    with lens_calls(conf) as journal, stages(name) as tell:
        bench = Bench(workspace(), conf, journal)
        opened = (subject_of(bench, card, evidence, given[card.name]) for card in cards)  # one in memory at a time
        panels, details = make(opened, tell)
    used = {"evidence": evidence.model_dump(mode="json")} | (more or {})
    study = Study(
        study=name, pairs=tuple(given), judge=judge, settings=used,
        panels=panels, details=details, notes=(*without_data(unknown), *notes(details)),
        seconds=round(time.perf_counter() - clock, 1),
    )  # fmt: skip
    written(study, to, plot=plot)
