"""The agent's first message: what the lenses saw, laid out for reading, dataset names blinded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from auditor.evidence.mapping import TOGETHER, Evidence
from auditor.methods.found import Differences
from auditor.models.blind import NEUTRAL
from auditor.prompts import Prompt
from auditor.readings import RankedTokens, Section, SideBySide
from auditor.records.cards import Agent
from auditor.views.brief import told


@dataclass(frozen=True, slots=True)
class Seen:
    """A section that an agent was shown, or may read, and the id under which; none if it was only named."""

    dataset: str
    lens: str
    section: Section
    trace: bool | None = None  # whether what the lens reads stands above chance; None: not tested
    id: str = ""


def blinded(datasets: Sequence[Evidence]) -> dict[str, Evidence]:
    """Names that tell nothing of the corpus: ds1, ds2, …; the tools take the same names.

    What the evidence says of the pair and the corpus is blanked too: tools hold it.
    """
    return {name: d.blinded(NEUTRAL, name) for name, d in ((f"ds{i}", d) for i, d in enumerate(datasets, 1))}


def seen_by(agent: Agent, datasets: Mapping[str, Evidence]) -> list[Seen]:
    """The sections of the lenses that the agent's card names, in its order, each shown one under an id (E1, E2, …).

    Tokens and texts that are only named come last; an offline investigator reads them all the same.
    """
    found = [
        Seen(name, lens, section, evidence.above_chance(lens))
        for name, evidence in datasets.items()
        for lens in agent.overview
        if lens in evidence
        for section in evidence[lens].show()
    ]
    shown = [seen for seen in found if seen.section.weight > 0]
    numbered = [replace(s, id=f"E{i}") for i, s in enumerate(shown, 1)]
    return numbered + [s for s in found if not s.section.weight and isinstance(s.section, RankedTokens | SideBySide)]


def lost(agent: Agent, evidence: Evidence) -> str:
    """Why the agent cannot be judged: nothing of what it is to be shown was read, or a judge failed over some of it.

    The first tells of nothing, the second may be read when the run is resumed. Empty if all is well enough.
    """
    missing = [name for name in agent.overview if name not in evidence]
    if not missing or (len(missing) < len(agent.overview) and not evidence.unfinished & set(missing)):
        return ""
    return "; ".join(f"{name} was not read: {evidence.failed.get(name, 'not asked for')}" for name in missing)


def render_overview(prompt: Prompt, agent: Agent, datasets: Mapping[str, Evidence]) -> str:
    """The overview for `agent`: only what its card names, and all of that, as `views.brief` tells it.

    How each lens reads comes first, then the verdicts, then the sections.
    """
    lens, seen = sees_lens(agent), seen_by(agent, datasets)
    shown = [_text(part, whole=not lens) for part in seen if part.id]
    lenses = _described(agent, datasets) if lens else []
    if lens:
        shown = _notes(agent, datasets) + shown
        if left_out := [f"{s.section.title}, {s.dataset}" for s in seen if not s.id]:
            shown.append(f"Not shown, but kept for the tools: {'; '.join(left_out)}.")
    return prompt.render(overview="\n\n".join(shown), lens=lens, lenses=lenses, base=has_base(datasets))


def _text(part: Seen, *, whole: bool) -> str:
    return f"## {part.id} · {told(part.section, part.dataset, whole=whole)}"


def _described(agent: Agent, datasets: Mapping[str, Evidence]) -> list[str]:
    """How each lens reads that the agent has: shown, read by a tool, or needed by one; then how to read its first
    section, of those that are shown.
    """
    lines: dict[str, None] = {}
    for evidence in datasets.values():
        for name, reading in evidence.items():
            about = [section.about for section in reading.show() if name in agent.overview and section.weight > 0][:1]
            described = evidence.lenses[name].description.split() if name in evidence.lenses else []
            own = "" if name in agent.overview else " (no section of its own)"
            lines[f"*{name}*{own}: {' '.join([*described, *filter(None, about)])}"] = None
    return list(lines)


def _notes(agent: Agent, datasets: Mapping[str, Evidence]) -> list[str]:
    """The lines against chance, where it was read, and what was not read or is short, in front of the sections."""
    verdicts = [
        f"Test against chance, {lens if lens == TOGETHER else f'lens {lens}'}, {name}: {verdict}."
        for name, evidence in datasets.items()
        for lens, verdict in evidence.only(agent.overview).verdicts.items()
    ]
    read = [
        f"Read in {name}: layers {', '.join(str(at.layer) for at in found.layers)}; positions "
        f"{', '.join(str(place.position) for place in found.layers[-1].positions)}."
        for name, evidence in datasets.items()
        if isinstance(found := evidence.get("differences"), Differences)
    ]
    noted = [f"Note on {name}: {line}." for name, evidence in datasets.items() for line in evidence.notes]
    return verdicts + read + noted


def has_base(datasets: Mapping[str, Evidence]) -> bool:
    """Whether there is a base to compare with."""
    return all(evidence.has_base for evidence in datasets.values())


def sees_lens(agent: Agent) -> bool:
    """Whether the agent is shown more than plain answers."""
    return set(agent.overview) != {"plain_samples"}
