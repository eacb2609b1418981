"""Suites that extend others: what a file does not say is what the other one says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditor.errors import BadFile, UsageError
from auditor.records.cards import Suite
from auditor.shelves import Broken, Loaded, Shelf
from auditor.yaml_files import Document, fitted, read_document

EXTENDS = "extends"
OWN = {"name", "description", EXTENDS}  # what is not handed on


@dataclass(frozen=True, slots=True)
class Draft:
    """A suite's file as it stands, and the namesake that it overrides, which it may extend."""

    name: str
    document: Document
    before: Draft | None


def read_draft(path: Path, before: Draft | None) -> Draft:
    """`before` is the suite that it overrides. Raises BadFile if it is no YAML mapping."""
    document = read_document(path)
    if not isinstance(document.data, dict):
        fitted(document.data, Suite, document)
    name = document.data.get("name")
    return Draft(name if isinstance(name, str) else path.stem, document, before)


def finish(drafts: Shelf[Draft], suites: Shelf[Suite]) -> None:
    """Put every draft on the shelf as a suite; one that extends a broken one is broken too."""
    suites.broken |= drafts.broken
    for name, item in drafts.items.items():
        try:
            data, documents = _merged(item.value, drafts, [])
            suites.items[name] = Loaded(fitted(data, Suite, *documents), item.path, item.root, item.overrides)
        except BadFile as error:
            suites.broken[name] = Broken(error, item.root, item.overrides)


def _merged(draft: Draft, drafts: Shelf[Draft], below: list[Path]) -> tuple[dict[str, Any], list[Document]]:
    """A draft's data laid over what it extends, and the files that these are from, its own first."""
    document = draft.document
    other = document.data.get(EXTENDS)
    own = {key: value for key, value in document.data.items() if key != EXTENDS}
    if other is None:
        return own, [document]
    try:
        if document.path in below:
            raise UsageError(f"it goes round in a circle over {', '.join(path.name for path in below)}")
        parent = draft.before if other == draft.name else drafts[str(other)]
        if parent is None:
            raise UsageError("it names itself, and overrides no suite of this name")
    except UsageError as error:
        raise BadFile(document.path, f"{EXTENDS}: {error}", document.find([EXTENDS]).line) from error
    data, documents = _merged(parent, drafts, [*below, document.path])
    handed = {key: value for key, value in data.items() if key not in OWN}
    return _laid_over(handed, own), [document, *documents]


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings are merged; everything else above hides what is below."""
    both = {
        key: _laid_over(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
        for key, value in above.items()
    }
    return {**below, **both}
