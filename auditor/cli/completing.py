"""What a TAB completes: names as files have them. No plugin is run for it."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import get_args

import typer
from typer.models import ParameterInfo

from auditor.errors import AuditorError
from auditor.workspace import builtin_root, find_user_root

RUNS = Path("runs")
PLUGIN = re.compile(r"^@(tool|lens|grader)\b[^\n]*(?:\n(?!def )[^\n]*)*\ndef (\w+)", re.M)
CARDS = {
    "organisms": "evals/organisms/*/organism.yaml", "suites": "evals/suites/*.yaml", "agents": "evals/agents/*.yaml",
    "rubrics": "rubrics/*.yaml",
}  # fmt: skip


def _roots() -> list[Path]:
    return [root for root in (builtin_root(), find_user_root()) if root is not None]


def _cards(kind: str) -> Iterator[str]:
    for root in _roots():
        for path in root.glob(CARDS[kind]):
            yield path.parent.name if kind == "organisms" else path.stem


def _plugins(decorator: str) -> Iterator[str]:
    for root in _roots():
        for path in (*root.glob("tools/*.py"), *root.glob("graders/*.py")):
            found = PLUGIN.findall(path.read_text("utf-8", errors="replace")) if path.is_file() else []
            yield from (name for kind, name in found if kind == decorator)


def _runs() -> Iterator[str]:
    yield from (path.name for path in (RUNS.iterdir() if RUNS.is_dir() else ()) if path.is_dir())


NAMES: dict[str, Callable[[], Iterator[str]]] = {
    **{kind: lambda kind=kind: _cards(kind) for kind in CARDS},  # type: ignore[misc]
    "tools": lambda: _plugins("tool"), "lenses": lambda: _plugins("lens"), "graders": lambda: _plugins("grader"),
    "runs": _runs,
}  # fmt: skip
OF_PARAMETER = {
    "organism": "organisms", "organisms": "organisms", "model": "organisms", "models": "organisms", "suite": "suites",
    "agent": "agents", "run": "runs", "runs": "runs", "lens": "lenses", "grader": "graders",
}  # fmt: skip


def _of(kind: str) -> Callable[[str], list[str]]:
    def matching(incomplete: str) -> list[str]:
        """Names that begin so, and folders where one can be given; nothing where a folder cannot be read."""
        with suppress(OSError, AuditorError):
            names = {name for name in NAMES[kind]() if name.startswith(incomplete)}
            return sorted(names | set(_folders(incomplete) if kind in ("organisms", "runs") and incomplete else ()))
        return []

    return matching


def _folders(incomplete: str) -> Iterator[str]:
    """As they were begun: `./my-l` goes on to `./my-lora/`."""
    before, slash, begun = incomplete.rpartition("/")
    for path in Path(os.path.expanduser(f"{before}{slash}") or ".").iterdir():
        if path.name.startswith(begun) and (begun or not path.name.startswith(".")) and path.is_dir():
            yield f"{before}{slash}{path.name}/"


def complete_names(app: typer.Typer, group: str = "") -> None:
    """Let every parameter complete what it is called by; in a group of things, `name` is such a thing's."""
    for command in app.registered_commands:
        assert command.callback is not None
        for parameter in inspect.signature(command.callback, eval_str=True).parameters.values():
            kind = OF_PARAMETER.get(parameter.name) or (group if parameter.name == "name" and group in NAMES else "")
            for info in get_args(parameter.annotation):
                if kind and isinstance(info, ParameterInfo):
                    info.autocompletion = _of(kind)
            command.callback.__annotations__[parameter.name] = parameter.annotation  # else typer reads it anew
    for each in app.registered_groups:
        if each.typer_instance is not None:
            complete_names(each.typer_instance, str(each.name))
