"""`auditor init`, and plugins and cards to start from."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from auditor.cli.shared import out, user_root
from auditor.cli.templates import CARDS, PLUGINS
from auditor.errors import UsageError
from auditor.workspace import MARKER

FOLDERS = ("tools", "graders", "rubrics", "prompts", "evals/suites", "evals/agents", "evals/organisms")

TOML = """\
# An auditor workspace: its tools, graders, rubrics, prompts and evals are laid over the built-in ones by name.
# Plugins are Python that runs with your rights.

[settings]
# llm = "openai:gpt-5"
# device = "cpu"
"""


def init(
    into: Annotated[str, typer.Argument(metavar="FOLDER", help="Where the workspace goes; made if it is not there.")],
) -> None:
    """Write a workspace of your own: an auditor.toml and empty folders for plugins and evals."""
    if not into.strip():
        raise UsageError("no folder is named; `auditor init .` writes the workspace here")
    folder = Path(into).expanduser()
    marker = folder / MARKER
    if marker.exists():
        raise UsageError(f"{marker} is there already; nothing was changed")
    try:
        for name in FOLDERS:
            (folder / name).mkdir(parents=True, exist_ok=True)
        marker.write_text(TOML, "utf-8")
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror or error}") from error
    out.print(
        f"workspace in {escape(str(folder))}; next: `cd {folder}`, `auditor tools new my_tool`",
        highlight=False,
    )


def new_plugin(kind: str, name: str) -> None:
    """A plugin file in the user's workspace that works as it is. Raises UsageError if it cannot be written."""
    if not name.isidentifier() or name.startswith("_") or keyword.iskeyword(name):
        raise UsageError(
            f"{name!r} cannot be a plugin's name: use letters, digits and underscores, and no word of Python's own"
        )
    words = name.replace("_", " ")
    source = PLUGINS[kind].format(name=name, title=words.capitalize(), args=words.title().replace(" ", ""))
    _write(Path("graders" if kind == "graders" else "tools") / f"{name}.py", source, f"auditor {kind} show {name}")


def new_card(kind: str, name: str) -> None:
    """A card in the user's workspace that can be loaded as it is. Raises UsageError if it cannot be written."""
    if not re.fullmatch(r"[A-Za-z0-9_][\w.-]{0,99}", name):
        raise UsageError(f"{name!r} cannot be a name: use letters, digits, -, _ and .")
    where, text = CARDS[kind]
    _write(Path(where.format(name=name)), text.replace("{name}", name), f"auditor {kind} show {name}")


def _write(place: Path, text: str, then: str) -> None:
    root = user_root()
    if root is None:
        raise UsageError("you are in no workspace; `auditor init DIR` writes one, then run this inside it")
    path = root / place
    if path.exists():
        raise UsageError(f"{path} is there already; nothing was changed")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    out.print(f"{escape(str(path))}: edit it, then `{escape(then)}`", highlight=False)
