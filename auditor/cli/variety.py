"""How much documents vary, as a table: a file beside the one that was written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from auditor.cli.shared import out, print_json

if TYPE_CHECKING:
    from auditor.config import Settings
    from auditor.records.cards import Organism
    from auditor.training.variety import Variety
    from auditor.workspace import Workspace

BY_HAND, FILE = {"texts": "cake_bake", "chats": "gold"}, "documents.jsonl"  # whose figures stand beside


def report_variety(ws: Workspace, card: Organism, path: Path, conf: Settings, seed: int, *, json: bool) -> None:
    """Print how varied a file is that is there. Raises BadFile."""
    from auditor.training.documents import read_documents
    from auditor.training.variety import text_of

    found = path if path.exists() or path.parent != card.folder else card.beside(path.name)
    documents = read_documents(found)
    chats = any(each.messages for each in documents)
    figures = figures_of(ws, [text_of(each) for each in documents], found, conf, seed, chats=chats)
    if json:
        print_json({"organism": card.name, "variety": {path: each.model_dump(mode="json") for path, each in figures}})
    else:
        show_variety(figures)


def figures_of(
    ws: Workspace, texts: Sequence[str], path: Path, conf: Settings, seed: int, *, chats: bool
) -> Sequence[tuple[str, Variety]]:
    """Of these texts, if there are any, and of a file of such that was written by hand, unless it is the same."""
    from auditor.models.embed import load_embedder
    from auditor.training.documents import read_documents
    from auditor.training.variety import measured, side_by_side, text_of

    if not texts:
        return ()
    name = BY_HAND["chats" if chats else "texts"]
    embed, by_hand = load_embedder(conf.embedder), ws.organisms[name].folder / FILE
    if not by_hand.is_file() or by_hand.resolve() == path.resolve():
        return ((str(path), measured(texts, embed, seed)),)
    others = [text_of(each) for each in read_documents(by_hand)]
    mine, theirs = side_by_side(texts, others, embed, seed)
    return ((str(path), mine), (f"by hand: {name}", theirs))


def show_variety(figures: Sequence[tuple[str, Variety]]) -> None:
    """A column for each file."""
    if not figures:
        return
    table = Table("", *(escape(Path(path).name) for path, _ in figures))
    every = [found for _, found in figures]

    def row(head: str, cell: Callable[[Variety], str]) -> None:
        table.add_row(head, *map(cell, every))

    row("documents", lambda v: f"{v.documents}")
    row("words", lambda v: f"{v.words:,} ({v.length[0]:.0f} ± {v.length[1]:.0f} each)")
    for n, head in enumerate(("distinct words", "distinct pairs", "distinct triples")):
        row(f"{head}, of the first {every[0].counted:,}", lambda v, n=n: _share(v.distinct[n]))  # type: ignore[misc]
    row("self-similarity", lambda v: "–" if v.alike is None else f"{v.alike:.2f} ± {v.spread or 0:.2f} ({v.sampled})")
    row("repeated, nearly repeated", lambda v: f"{v.repeats}, {v.near}")
    out.print(table)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
