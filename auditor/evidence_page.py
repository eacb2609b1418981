"""An evidence sheet as one self-contained HTML file: no scripts, nothing loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from auditor import __version__
from auditor.text import chance_lines, shortfalls, visible
from auditor.types import Evidence, LayerEvidence, ScoredToken

RANKS = 20
SHADE = (9, 105, 218)  # of the likeliest token; white is probability 0
TEMPLATE = Path(__file__).parent / "pages" / "evidence.html"


@dataclass(frozen=True, slots=True)
class Cell:
    """A token in a heat map: `shade` is `r, g, b`, by its share of the column's highest probability."""

    token: str
    prob: float
    shade: str
    chosen: bool = False


@dataclass(frozen=True, slots=True)
class HeatMap:
    """Tokens by rank (rows) and position (columns)."""

    title: str
    heads: list[str]
    rows: list[list[Cell]]


def to_html(sheet: Evidence) -> str:
    """The whole page. Everything that a model wrote is escaped, control characters shown."""
    env = Environment(undefined=StrictUndefined, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    env.filters["visible"] = lambda text: visible(text, 2_000)
    maps = {layer.layer: _maps(layer) for layer in sheet.layers}
    return env.from_string(TEMPLATE.read_text("utf-8")).render(
        sheet=sheet, chance=chance_lines(sheet.chance), shortfalls=shortfalls(sheet), maps=maps, version=__version__
    )


def _maps(layer: LayerEvidence) -> list[HeatMap]:
    found = []
    read = [(p, p.patchscope) for p in layer.positions if p.patchscope]
    if read:
        heads = [f"{p.position} (λ {s.choice.scale:g}; {s.choice.cohesion:.1f} sd)" for p, s in read]
        columns = [_column(s.tokens, s.choice.selected) for _, s in read]
        found.append(HeatMap("Patchscope", heads, _rows(columns)))
    heads = [str(p.position) for p in layer.positions]
    found.append(HeatMap("Logit lens", heads, _rows([_column(p.logit_lens.top) for p in layer.positions])))
    return found


def _column(tokens: Sequence[ScoredToken], chosen: Sequence[str] = ()) -> list[Cell]:
    most = max((t.prob for t in tokens), default=0.0) or 1.0
    return [Cell(visible(t.token, 40), t.prob, _shade(t.prob / most), t.token in chosen) for t in tokens[:RANKS]]


def _shade(share: float) -> str:
    """White to a light blue on which black text stays readable."""
    return ", ".join(str(round(255 - 0.55 * share * (255 - end))) for end in SHADE)


def _rows(columns: Sequence[list[Cell]]) -> list[list[Cell]]:
    empty = Cell("", 0.0, "255, 255, 255")
    height = max(map(len, columns), default=0)
    return [[column[i] if i < len(column) else empty for column in columns] for i in range(height)]
