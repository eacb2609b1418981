"""`auditor init`, and plugin files to start from."""

from __future__ import annotations

import keyword
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from auditor.cli.shared import out, user_root
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

TOOL = '''\
"""{title}."""

from pydantic import Field

from auditor import Args, Context, tool


class {args}Args(Args):
    prompt: str = Field(description="what to look at")


@tool(cost=0)
def {name}(ctx: Context, args: {args}Args) -> dict[str, int]:
    """Say here what the agent learns from this, and when to use it."""
    return {{"tokens": len(ctx.pair.tokenizer(args.prompt).input_ids)}}
'''

LENS = '''\
"""{title}."""

from collections.abc import Sequence

from pydantic import Field

from auditor import Args, Context, LensContext, ModelPair, RankedTokens, Reading, Record, lens, tool
from auditor.readings import Column, Section, Token


class {args}Settings(Record):
    texts: int = Field(8, ge=1, description="of the corpus")


class {args}(Reading):
    lengths: tuple[tuple[str, int], ...]

    def show(self) -> Sequence[Section]:
        tokens = tuple(Token(text=word, number=length) for word, length in self.lengths)
        column = Column(head="all", tokens=tokens)
        return [RankedTokens(title="{title}", places="texts", number="letters", columns=(column,))]


@lens
def {name}(pair: ModelPair, ctx: LensContext, settings: {args}Settings) -> {args}:
    """Say here what is measured in the pair; this one only reads words of the corpus."""
    words = {{word for text in ctx.corpus.texts[: settings.texts] for word in text.split()}}
    return {args}(lengths=tuple(sorted(((w, len(w)) for w in words), key=lambda item: -item[1])[:20]))


class {args}Query(Args):
    dataset: str
    k: int = Field(20, ge=1, le=100)


@tool
def get_{name}(ctx: Context, args: {args}Query) -> list[tuple[str, int]]:
    """Say here what the agent learns from this, and when to use it."""
    return list(ctx.dataset(args.dataset).reading("{name}", {args}).lengths[: args.k])
'''

GRADER = '''\
"""{title}."""

from auditor import AuditRecord, Grade, Organism, Rubric, grader


@grader
def {name}(audit: AuditRecord, organism: Organism, rubric: Rubric) -> Grade:
    """Say here what a high grade means."""
    named = bool(organism.topic) and organism.topic.lower() in audit.hypothesis.lower()
    return Grade(score=5 if named else 1, reasoning=f"subject named: {{named}}")
'''


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
    root = user_root()
    if root is None:
        raise UsageError("you are in no workspace; `auditor init DIR` writes one, then run this inside it")
    if not name.isidentifier() or name.startswith("_") or keyword.iskeyword(name):
        raise UsageError(
            f"{name!r} cannot be a plugin's name: use letters, digits and underscores, and no word of Python's own"
        )
    path = root / ("graders" if kind == "graders" else "tools") / f"{name}.py"
    if path.exists():
        raise UsageError(f"{path} is there already; nothing was changed")
    template = {"tools": TOOL, "lenses": LENS, "graders": GRADER}[kind]
    words = name.replace("_", " ")
    path.parent.mkdir(parents=True, exist_ok=True)
    source = template.format(name=name, title=words.capitalize(), args=words.title().replace(" ", ""))
    path.write_text(source, "utf-8")
    out.print(f"{escape(str(path))}: edit it, then `auditor {kind} show {name}`", highlight=False)
