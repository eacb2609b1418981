"""What the commands share: consoles, the workspace, JSON output."""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape

from auditor.config import Settings, load_settings
from auditor.workspace import MARKER, Workspace, find_user_root, load_workspace

out, err = Console(emoji=False), Console(stderr=True, emoji=False)  # `:x:` in a model's text is text

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout and nothing else.")]

ServerOption = Annotated[
    str | None, typer.Option(help="Address of an `auditor serve` that has the models; default: in this process.")
]

_root: Path | None = None


def choose_workspace(root: Path | None) -> None:
    """Remember --workspace for this process."""
    global _root
    _root = root


@lru_cache(maxsize=1)
def workspace() -> Workspace:
    """All roots, with the user's plugins listed at start and broken files told in one line each."""
    user = find_user_root(_root)
    loaded = load_workspace(user)
    if user is not None:
        plugins = [
            item.path.name for shelf in (loaded.tools, loaded.graders) for item in shelf if item.root == "workspace"
        ]
        listed = f" (plugins: {', '.join(sorted(plugins))})" if plugins else ""
        err.print(f"workspace {escape(str(user))}{listed}", style="dim", highlight=False)
    for shelf in loaded.shelves():
        for problem in shelf.broken.values():
            err.print(f"[yellow]warning:[/] {escape(str(problem))}", highlight=False, soft_wrap=True)
    return loaded


def settings(**flags: Any) -> Settings:
    """Settings with the user workspace's auditor.toml under the flags."""
    user = find_user_root(_root)
    return load_settings(user / MARKER if user else None, **flags)


def print_json(value: Any) -> None:
    """One document on stdout."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
