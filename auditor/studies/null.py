"""What lenses read in broad finetunes of a base, kept for others to be held against."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from auditor.audits.bench import Bench
from auditor.audits.plan import target_of
from auditor.config import Settings
from auditor.errors import UsageError
from auditor.evidence.compute import Report, evidence_for
from auditor.evidence.recipe import Recipe
from auditor.methods.nulls import Nulls
from auditor.readings import Reading
from auditor.workspace import Workspace


def leaving_traces(ws: Workspace) -> list[str]:
    """The lenses whose readings keep anything to compare with; others would be read for nothing."""
    return [name for name, lens in ws.lenses.by_name().items() if lens.reading.trace is not Reading.trace]


def nulls_of(
    ws: Workspace, conf: Settings, organisms: Sequence[str], lenses: Sequence[str], suite: str, tell: Report
) -> list[Nulls]:
    """Nulls of each of `lenses` that leaves a trace to compare with, over all `organisms`, one in memory at a time.

    Raises UsageError for organisms of different bases, for a lens that could not be read in one of them, and if no lens
    leaves a trace.
    """
    traces: dict[str, list[dict[str, Tensor]]] = defaultdict(list)
    bases: list[tuple[str, ...]] = []
    recipe: Recipe | None = None
    bench = Bench(ws, conf)
    for name in organisms:
        tell(name)
        pair = bench.pair(target_of(ws.organisms[name]))
        recipe = bench.recipe(pair, ws.suites[suite].evidence)
        found = evidence_for(pair, recipe, lenses, tell)
        for lens in lenses:
            if lens in found.failed:
                raise UsageError(f"{name}: {lens} was not read: {found.failed[lens]}")
            if trace := found[lens].trace:
                traces[lens].append(dict(trace))
        bases.append(tuple(pair.base_sources))
    if len(set(bases)) > 1:
        raise UsageError("these organisms have different bases; give finetunes of one")
    if recipe is None or not traces:
        raise UsageError(f"no trace is kept of {', '.join(lenses)}")
    return [_stacked(recipe, lens, bases[0], found) for lens, found in traces.items()]


def _stacked(recipe: Recipe, name: str, bases: tuple[str, ...], found: Sequence[dict[str, Tensor]]) -> Nulls:
    lens, texts = recipe.lenses[name], min(recipe.settings.texts, len(recipe.read_corpus().texts))
    bound = lens.reading.corpus_bound
    return Nulls(
        lens=name,
        bases=bases,
        traces={key: torch.stack([trace[key] for trace in found]) for key in found[0]},
        settings=recipe.settings_of(lens).model_dump(mode="json"),
        corpus=recipe.corpus_drawn_from if bound else "",
        texts=texts if bound else 0,
    )
