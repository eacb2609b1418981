"""README and docs as tests read them: fenced blocks with the note above each, and commands held against the parser."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditor.server.schema import BothAsked

ROOT = Path(__file__).parent.parent
FENCE = re.compile(
    r"(?:^<!-- (?P<note>run|run: exit \d+|not run: [^\n]+|file: \S+) -->\n\n?)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.M | re.S,
)
PATH = re.compile(r"# ((?:tools|graders|rubrics|prompts|evals)/[\w./-]+|auditor\.toml)\n")
INLINE = re.compile(r"(?<!`)`(auditor [^`\n]+)`(?!`)")
OTHERS = {"cat", "cd", "cp", "curl", "docker", "export", "git", "inspect", "langgraph", "ls", "mkdir", "pip"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and what the comment above says of it."""

    page: Path
    line: int
    kind: str
    text: str
    note: str

    @property
    def path(self) -> str:
        """The file that it is, as the comment above or its own first line has it."""
        found = PATH.match(self.text)
        return self.note.removeprefix("file: ") if self.note.startswith("file: ") else found[1] if found else ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def all_pages() -> list[Path]:
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = [
        Block(page, text.count("\n", 0, m.start("kind")) + 1, m["kind"], m["text"], m["note"] or "")
        for m in FENCE.finditer(text)
    ]
    assert 2 * len(found) == len(re.findall(r"^ *```", text, re.M)), f"{page}: a fence that is not read as a block"
    return found


def commands(script: str) -> Iterator[list[str]]:
    """The simple commands of a shell script, without comments, assignments and redirections."""
    script = re.sub(r"\$\([^)]*\)", "X", script.replace("\\\n", " "))
    for line in script.splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        words.whitespace_split, words.commenters = True, "#"
        command: list[str] = []
        for word in [*words, ";"]:
            if re.fullmatch(r"[|&;]+", word):
                while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                    command.pop(0)
                if command:
                    yield command[: next((i for i, w in enumerate(command) if w in (">", "<", ">>")), None)]
                command = []
            else:
                command.append(word)


def check_command(words: list[str]) -> None:
    """Raises or fails for a command that there is not, or options that it does not take; runs nothing."""
    program, *rest = words
    if program in ("auditor", ".venv/bin/auditor"):
        command_of(rest)
    elif program == "uvx":
        assert rest[0] == "auditor-adl"
        command_of(rest[1:])
    elif program == "claude":  # a program that starts ours
        if "--" in rest:
            check_command(rest[rest.index("--") + 1 :])
    elif program == "curl" and any(word.endswith("/v1/ask") for word in rest):
        BothAsked.model_validate_json(rest[rest.index("-d") + 1])
    elif program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
        assert set(rest) <= set(targets), rest
    elif program == "python" and rest[0].endswith(".py"):
        assert (ROOT / rest[0]).is_file(), rest[0]
    else:
        assert program in {*OTHERS, "python"}, f"what is {program!r}? say so in tests/pages.py"


def command_of(args: list[str]) -> str:
    """The command's name. Raises what typer does for arguments and options that it does not take."""
    import typer

    from auditor.cli.app import app

    command: Any = typer.main.get_command(app)
    ctx, path = command.make_context("auditor", list(args)), []
    while hasattr(command, "commands"):
        rest = [*ctx._protected_args, *ctx.args]
        name, command, rest = command.resolve_command(ctx, rest)
        ctx = command.make_context(name, rest, parent=ctx)
        path.append(name)
    return " ".join(path)


def check_mention(text: str) -> None:
    """`auditor study mixing|samples` in a sentence: every command, and every option named, is there."""
    import typer

    from auditor.cli.app import app

    root: Any = typer.main.get_command(app)
    found, options = [root], {name for param in root.params for name in param.opts}
    for word in text.split()[1:]:
        if word.startswith("-"):
            params = [param for command in found for param in command.params]
            names = {name for param in params for name in (*param.opts, *param.secondary_opts)} | options
            assert word.split("=")[0].rstrip(",") in names | {"--help", "-h"}, f"{text}: no option {word}"
        elif all(hasattr(command, "commands") for command in found):
            named = re.split(r"[|,]", word)
            if re.fullmatch(r"[a-z][\w|-]*", word):
                missing = [name for name in named if not any(name in command.commands for command in found)]
                assert not missing, f"{text}: no command {missing}"
                found = [command.commands[n] for command in found for n in named if n in command.commands]
            else:
                return  # a placeholder, such as … or COMMAND


def check_names(source: str) -> None:
    """Code that is not run compiles, and what it takes from `auditor` is there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "auditor":
            module = importlib.import_module(str(node.module))
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "auditor":
            assert hasattr(importlib.import_module("auditor"), node.attr), ast.unparse(node)
