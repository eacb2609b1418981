"""Run lenses in the order of their needs; each reading is kept on its own, and one that fails loses only itself."""

from __future__ import annotations

import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from auditor.errors import AuditorError, BadModel, GraderFailed, NoBase, UsageError
from auditor.evidence import cache
from auditor.evidence.counted import Counted
from auditor.evidence.mapping import Cost, Evidence
from auditor.evidence.others import Others
from auditor.evidence.recipe import Recipe, before_nulls, closure, key_of
from auditor.evidence.served import ByServer
from auditor.lenses import Lens
from auditor.llm.failures import CallFailed, EndpointUnusable
from auditor.llm.verdict import NoVerdict
from auditor.models.generate import Side
from auditor.models.http import Unusable
from auditor.models.pair import ModelPair
from auditor.models.worker import ClientGone
from auditor.plugins import Grader
from auditor.readings import Reading

Report = Callable[[str], None]
"""Told the name of each lens, and of its stages, as it starts."""

FATAL = (BadModel, ClientGone, EndpointUnusable, Unusable)  # after these nothing else would go better

JUDGES = (CallFailed, GraderFailed, NoVerdict)  # a judge failed: another try may not


def evidence_for(
    pair: ModelPair, recipe: Recipe, names: Iterable[str], report: Report = lambda stage: None, *, compute: bool = True
) -> Evidence:
    """What the lenses called `names` read, and what they need; from the cache where it was read before.

    Without `compute` only what is in the cache. Raises what ends everything: broken weights, a server or judge that is
    gone.
    """
    order, failed = closure(recipe.lenses, names)
    root = recipe.grading.settings.cache_dir / "evidence"
    keys: dict[str, str] = {}
    readings: dict[str, Reading] = {}
    costs: dict[str, Cost] = {}
    unfinished = set[str]()
    server = ByServer(pair, recipe)
    for lens in order:
        if lost := [need for need in lens.needs if need not in readings]:
            baseless = failed[lost[0]] == NoBase.reason
            failed[lens.name] = NoBase.reason if baseless else f"it needs {lost[0]}, which was not read"
            if unfinished & set(lost):
                unfinished.add(lens.name)
            continue
        try:
            parts = recipe.parts(lens, pair, [keys[need] for need in lens.needs])
            key = keys[lens.name] = key_of(parts)
            if (found := cache.kept(root, lens, key)) is None and not compute:
                failed[lens.name] = "it is not in the cache"
                continue
            if found is None:
                with cache.alone(root, lens, key):
                    if (found := cache.kept(root, lens, key)) is None:  # nobody else has read it meanwhile
                        report(lens.name)
                        if (found := server.read(lens, parts, report)) is None:
                            needed = {need: readings[need] for need in lens.needs}
                            found = _held_against_nulls(pair, recipe, lens, parts, needed, report)
                        cache.keep(root, lens, key, *found)
        except Exception as error:
            if isinstance(error, FATAL):
                raise
            failed[lens.name] = reason_of(error)
            if isinstance(error, JUDGES):
                unfinished.add(lens.name)
            continue
        readings[lens.name], costs[lens.name] = found
    settings = {lens.name: recipe.settings_of(lens) for lens in order}
    return Evidence(
        pair.name, pair.fingerprint, recipe.settings.corpus, readings, failed, costs, settings,
        {lens.name: lens for lens in order}, frozenset(unfinished), pair.has_base, keys,
        {"base": pair.base_sources, "finetuned": pair.tuned_sources},
    )  # fmt: skip


def _held_against_nulls(
    pair: ModelPair, recipe: Recipe, lens: Lens, parts: Mapping[str, str], needed: Mapping[str, Reading], report: Report
) -> tuple[Reading, Cost]:
    """What the lens reads, beside what it read in broad finetunes. New ones of those make no reading old."""
    if not (known := recipe.nulls_of(lens)):
        return _read(pair, recipe, lens, needed, report)
    root, before = recipe.grading.settings.cache_dir / "evidence", before_nulls(parts)
    if (found := cache.kept(root, lens, before)) is None:
        found = _read(pair, recipe, lens, needed, report)
        cache.keep(root, lens, before, *found)
    return found[0].held_against(pair, recipe.context(lens, needed, report), known[0][1]), found[1]


def _read(
    pair: ModelPair, recipe: Recipe, lens: Lens, needed: Mapping[str, Reading], report: Report
) -> tuple[Reading, Cost]:
    counted, judged = Counted(pair), Counter[str]()
    others = Others(pair, recipe.others(lens), recipe.grading.settings, report)
    graders = {name: _counting(recipe.graders[name], judged) for name in _judges(recipe, lens)}
    context = replace(recipe.context(lens, needed, report), graders=graders, alone=others)
    clock = time.perf_counter()
    try:
        reading = lens.run(counted, context, recipe.settings_of(lens))
    except BadModel as error:
        if recipe.others(lens):  # not the pair's weights, or the next lens will tell
            raise UsageError(str(error)) from error
        raise
    seconds = round(time.perf_counter() - clock, 2)
    if not isinstance(reading, lens.reading):
        raise AuditorError(f"it gave {type(reading).__name__}, where it says {lens.reading.__name__}")
    tokens = counted.tokens
    cost = Cost(
        seconds=seconds, base_tokens=tokens[Side.BASE], finetuned_tokens=tokens[Side.FINETUNED],
        other_tokens=others.tokens, judged=judged.total(),
    )  # fmt: skip
    return reading, cost


def _judges(recipe: Recipe, lens: Lens) -> set[str]:
    settings = recipe.settings_of(lens)
    return {getattr(settings, name) for name in lens.judges}


def _counting(grader: Grader, judged: Counter[str]) -> Grader:
    def run(*given: Any) -> Any:
        judged[grader.name] += 1
        return grader.run(*given)

    return replace(grader, run=run)


def reason_of(error: BaseException) -> str:
    """One line; of a bug in a lens, where it is."""
    if isinstance(error, AuditorError):
        return str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
    return f"{type(error).__name__}: {first} ({Path(frame.filename).name}:{frame.lineno})"
