"""The hash of all source files of this project that a lens' file imports: a change there makes its readings old."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import auditor

ROOT = Path(auditor.__file__).parent
# What decides what a pair gives, whatever the lens; and what is only declared there.
ALWAYS = ("auditor.models.load", "auditor.methods.corpus")
DECLARATIONS = ("auditor.plugins", "auditor.lenses", "auditor.readings", "auditor.workspace", "auditor.config")


def source_hash(path: Path) -> str:
    """Of a lens' file and of all that decides what a pair gives."""
    return closure_hash(path, ALWAYS)


def closure_hash(path: Path, always: Iterable[str] = ()) -> str:
    """Of `path`, of what it imports, transitively, and of `always`. Imports for type checking alone do not count."""
    files: dict[Path, None] = {path: None}
    waiting = [*_imported(path), *always]
    while waiting:
        name = waiting.pop()
        if (found := _file_of(name)) is not None and found not in files:
            files[found] = None
            waiting += _imported(found)
    # In no order of folders: the same code gives the same hash wherever it is installed.
    contents = sorted(hashlib.sha256(file.read_bytes()).digest() for file in files)
    return hashlib.sha256(b"".join(contents)).hexdigest()


def _file_of(name: str) -> Path | None:
    """The file of a module of this project, unless it only declares things."""
    if not name.startswith("auditor.") or name in DECLARATIONS:
        return None
    path = ROOT.joinpath(*name.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@lru_cache(maxsize=512)
def _imported(path: Path) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_names(ast.parse(path.read_bytes()))))


def _names(node: ast.AST) -> Iterator[str]:
    """Names of modules that `node` imports, inside functions too."""
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _names(child)
