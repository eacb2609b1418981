"""An evidence sheet as one self-contained HTML file."""

from __future__ import annotations

from auditor.sheet_readings import readings_of
from auditor.types import Evidence
from auditor.views import page


def to_html(sheet: Evidence) -> str:
    """The whole page. Everything that a model wrote is escaped, control characters shown."""
    readings = readings_of(sheet)
    lead = [
        f"What the mean activation difference on the first tokens of {sheet.texts_read:,} unrelated texts (corpus "
        f"{sheet.corpus}) reads as. Middle layer {sheet.middle_layer}, last layer {sheet.last_layer}.",
        *(f"Note: {line}." for reading in readings.values() for line in reading.notes),
    ]
    seconds = ", ".join(f"{stage} {spent:.0f} s" for stage, spent in sheet.seconds.items())
    foot = [f"fingerprint {sheet.fingerprint}", f"seed {sheet.settings.seed}", seconds]
    return page.to_html(sheet.pair, lead, [s for reading in readings.values() for s in reading.show()], foot)
