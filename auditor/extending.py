"""Cards that extend others: what a suite's or an organism's file does not say is what the other one says."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from auditor.errors import BadFile, UsageError
from auditor.records.cards import Organism, Suite
from auditor.shelves import Broken, Loaded, Shelf
from auditor.yaml_files import Document, fitted, read_document

T = TypeVar("T", Suite, Organism)

EXTENDS = "extends"
SUITES_OWN = {"name", "description"}  # what is not handed on
ORGANISMS_OWN = {"name", "adapter", "model", "models", "dataset", "note", "leaky"}


@dataclass(frozen=True, slots=True)
class Draft:
    """A card's file as it stands, and the namesake that it overrides, which it may extend."""

    name: str
    document: Document
    before: Draft | None


def read_draft(path: Path, before: Draft | None, model: type[Suite | Organism]) -> Draft:
    """`before` is the card that it overrides. Raises BadFile if it is no YAML mapping, or alone and wrong."""
    document = read_document(path)
    if not isinstance(document.data, dict) or EXTENDS not in document.data:
        fitted(document.data, model, document)
    name = document.data.get("name")
    default = path.stem if model is Suite else path.parent.name
    return Draft(name if isinstance(name, str) else default, document, before)


def finish(
    drafts: Shelf[Draft],
    cards: Shelf[T],
    model: type[T],
    own: Collection[str],
    made: Callable[[T, Sequence[Path]], None] = lambda card, files: None,
) -> None:
    """Put every draft on the shelf as a card; one that extends a broken one is broken too.

    `own`: what is not handed on; `made` is told each card's files, its own first.
    """
    cards.broken |= drafts.broken
    for name, item in drafts.items.items():
        try:
            data, documents = _merged(item.value, drafts, own, [])
            card = fitted(data, model, *documents)
            made(card, [document.path for document in documents])
            cards.items[name] = Loaded(card, item.path, item.root, item.overrides)
        except BadFile as error:
            cards.broken[name] = Broken(error, item.root, item.overrides)


def _merged(
    draft: Draft, drafts: Shelf[Draft], own: Collection[str], below: list[Path]
) -> tuple[dict[str, Any], list[Document]]:
    """A draft's data laid over what it extends, and the files that these are from, its own first."""
    document = draft.document
    other = document.data.get(EXTENDS)
    said = {key: value for key, value in document.data.items() if key != EXTENDS}
    if other is None:
        return said, [document]
    try:
        if document.path in below:
            raise UsageError(f"it goes round in a circle over {', '.join(map(_called, below))}")
        parent = draft.before if other == draft.name else drafts[str(other)]
        if parent is None:
            raise UsageError(f"it names itself, and overrides no {drafts.kind} of this name")
    except UsageError as error:
        raise BadFile(document.path, f"{EXTENDS}: {error}", document.find([EXTENDS]).line) from error
    data, documents = _merged(parent, drafts, own, [*below, document.path])
    handed = {key: value for key, value in data.items() if key not in own}
    return _laid_over(handed, said), [document, *documents]


def _called(path: Path) -> str:
    return path.parent.name if path.name == "organism.yaml" else path.name


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged; everything else above hides what is below."""
    both = {
        key: _laid_over(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }
    return {**below, **both}
