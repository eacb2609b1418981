"""All of a pair's evidence, in the order in which people read it."""

from __future__ import annotations

from auditor.evidence.mapping import TOGETHER, Evidence
from auditor.readings import Reading
from auditor.views import page


def ordered(evidence: Evidence) -> list[Reading]:
    """Readings with a verdict first, else as they were computed: needs before what is built on them."""
    return sorted(evidence.values(), key=lambda reading: not reading.verdict)


def page_of(evidence: Evidence) -> str:
    """One self-contained HTML file."""
    first = [f"{verdict}." for lens, verdict in evidence.verdicts.items() if lens == TOGETHER]
    lead = [*first, f"What was read of the pair; corpus {evidence.corpus}.", *(f"Note: {n}." for n in evidence.notes)]
    spent = ", ".join(f"{name} {cost.seconds:.0f} s" for name, cost in evidence.costs.items())
    sections = [section for reading in ordered(evidence) for section in reading.show()]
    return page.to_html(evidence.pair, lead, sections, [f"fingerprint {evidence.fingerprint}", spent])
