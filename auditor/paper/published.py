"""What the paper prints in numbers."""

from __future__ import annotations

from pydantic import Field

from auditor.records.record import Record


class Printed(Record):
    """A share of organisms that the paper's text names."""

    agent: str
    budget: int
    least: int
    share: float
    note: str = ""


class Row(Record):
    """Ours beside the paper's; null where these runs have none."""

    what: str
    paper: float
    ours: float | None
    organisms: int = Field(0, description="that ours is over; the paper's is over 33")
    note: str = ""


ONE_PERCENT = "no share of 33 organisms is 1 %: of single audits it could be (about 2 of 165)"

FIGURE_3 = (
    Printed(agent="adl", budget=5, least=2, share=0.91),
    Printed(agent="adl", budget=5, least=4, share=0.30),
    Printed(agent="adl", budget=0, least=2, share=0.82),
    Printed(agent="adl", budget=0, least=4, share=0.24),
    Printed(agent="blackbox", budget=50, least=2, share=0.39),
    Printed(agent="blackbox", budget=50, least=4, share=0.01, note=ONE_PERCENT),
)
FIGURE_16 = (
    Printed(agent="adl", budget=5, least=2, share=0.97),
    Printed(agent="adl", budget=5, least=4, share=0.60),
    Printed(agent="adl", budget=0, least=2, share=0.94),
    Printed(agent="adl", budget=0, least=4, share=0.39),
    Printed(agent="blackbox", budget=50, least=2, share=0.12),
    Printed(agent="blackbox", budget=50, least=4, share=0.06),
)
