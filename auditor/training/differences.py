"""The differences of a plain finetune, for the training that takes them out."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from auditor.audits.bench import Bench
from auditor.audits.plan import target_of
from auditor.config import Settings
from auditor.errors import UsageError
from auditor.evidence.compute import evidence_for
from auditor.methods.found import Differences
from auditor.models.weights import resolve
from auditor.records.cards import Organism
from auditor.workspace import Workspace

SUITE = "quickstart"  # whose corpus and settings they are measured with


def differences_of(ws: Workspace, card: Organism, settings: Settings, tell: Callable[[str], None]) -> Tensor:
    """δ (k, d_model) at the middle layer of the organism as its card has it.

    Raises UsageError if that is not trained yet, or cannot be read.
    """
    try:
        resolve(card.finetuned, settings)
    except UsageError as error:
        raise UsageError(
            f"{card.name}: CAFT takes out the differences of the plain finetune, which cannot be read: {error}"
        ) from error
    bench = Bench(ws, settings)
    pair = bench.pair(target_of(card))
    found = evidence_for(pair, bench.recipe(pair, ws.suites[SUITE].evidence), ["differences"], tell)
    if found.failed:
        raise UsageError(f"{card.name}: its differences were not read: {next(iter(found.failed.values()))}")
    read = found.reading("differences", Differences)
    return read.difference(pair.n_layers // 2).delta
