"""What lenses read in a run's organisms, from the cache where it lies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from auditor.comparison.scores import Run
from auditor.evidence import cache
from auditor.readings import Section
from auditor.workspace import Workspace

Readings = Callable[[str], tuple[Sequence[Section], Sequence[str]]]
"""By an organism's name: the sections of its readings, and what is missing of them."""


def kept_readings(run: Run, workspace: Workspace, root: Path) -> Readings:
    """Those that the run's agents were given."""

    def readings(organism: str) -> tuple[Sequence[Section], Sequence[str]]:
        found, missing = kept_by_lens(run, organism, workspace, root)
        sections = [section for shown in found.values() for section in shown]
        return sections, [f"No longer in the cache: {', '.join(missing)}."] if missing else []

    return readings


def kept_by_lens(
    run: Run, organism: str, workspace: Workspace, root: Path
) -> tuple[dict[str, Sequence[Section]], list[str]]:
    """What each lens read in an organism, by its name; and the lenses whose readings are no longer there."""
    keys: dict[str, str] = {}
    for record in run.records:
        if record.organism == organism:
            keys |= record.evidence
    sections, missing = dict[str, Sequence[Section]](), list[str]()
    for lens, key in keys.items():
        known = workspace.lenses.items.get(lens)
        found = cache.kept(root, known.value, key) if known is not None else None
        if found is None:
            missing.append(lens)
        else:
            sections[lens] = found[0].show()
    return sections, missing
