"""Declarative files, read strictly: every mistake is told with its file and line."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from auditor.errors import BadFile

M = TypeVar("M", bound=BaseModel)

TOLD = {"tuple_type": "give a list, in brackets or a line each", "list_type": "give a list"}
UNQUOTED = {bool: "a truth value", int: "a number", float: "a number", type(None): "nothing"}


_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's, a quarter of the time


class _Strict(_Safe):  # type: ignore[misc]
    """A key that is given twice is a mistake, not a change of mind."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is given twice", key.start_mark)
                seen.add(key.value)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


@dataclass(frozen=True, slots=True)
class Document:
    """A file's content, and where in it everything stands."""

    path: Path
    data: Any
    node: yaml.Node | None

    def find(self, where: Sequence[int | str]) -> Place:
        """The place of `where`, or of the innermost part around it that is there."""
        place = Place(0, 1, self.node)
        for depth, part in enumerate(where, 1):
            key, below = _below(place.node, part)
            if below is None:
                break
            place = Place(depth, (key or below).start_mark.line + 1, below)
        return place


@dataclass(frozen=True, slots=True)
class Place:
    """How far down a file was followed, the line there (from 1), and the value."""

    depth: int
    line: int
    node: yaml.Node | None


def _below(node: yaml.Node | None, part: int | str) -> tuple[yaml.Node | None, yaml.Node | None]:
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(part)), (None, None))
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return None, node.value[part]
    return None, None


def read_document(path: Path) -> Document:
    """Raises BadFile if it is no YAML."""
    try:
        text = path.read_text(encoding="utf-8")
        return Document(path, yaml.load(text, _Strict), yaml.compose(text, _Strict))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise BadFile(path, f"broken YAML: {error.problem or error}", line) from error
    except (yaml.YAMLError, ValueError, RecursionError, OSError) as error:  # dates that are none are ValueErrors
        raise BadFile(path, f"cannot be read: {str(error).splitlines()[0]}") from error


def fitted(data: Any, model: type[M], *documents: Document) -> M:
    """`data` as a record; it stands in the first of `documents`, or in one that this extends. Raises BadFile."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = first["loc"]
        holder = max(documents, key=lambda document: document.find(where).depth)  # the first of equals
        place = holder.find(where)
        reason = TOLD.get(first["type"], first["msg"].removeprefix("Value error, "))
        if first["type"] == "string_type" and isinstance(place.node, yaml.ScalarNode):
            kind, text = UNQUOTED.get(type(first["input"]), "a date"), place.node.value
            reason = f"`{text}` without quotes is {kind} in YAML; write '{text}'"
        raise BadFile(holder.path, f"{'.'.join(map(str, where)) or 'file'}: {reason}", place.line) from error


def read_yaml(path: Path, model: type[M]) -> M:
    """The record in a file. Raises BadFile with the line of the first mistake."""
    document = read_document(path)
    return fitted(document.data, model, document)
