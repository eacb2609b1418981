"""Prompts: Jinja templates in Markdown files, their variables declared in front matter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from auditor.errors import BadFile, UsageError

if TYPE_CHECKING:  # `auditor --help` needs none of it
    from jinja2 import Environment

_FRONT = re.compile(r"---\r?\n(.*?)\r?\n---\r?\n(.*)", re.S)


def _environment() -> Environment:
    from jinja2 import Environment, StrictUndefined

    return Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


@dataclass(frozen=True, slots=True)
class Prompt:
    """A Jinja template with its declared variables, and with all that it is given to fill in."""

    name: str
    variables: frozenset[str]
    source: str
    given: frozenset[str]

    def render(self, **values: Any) -> str:
        """Raises UsageError if the variables given are not those declared, or the template fails on them."""
        from jinja2 import TemplateError

        if missing := self.variables - values.keys():
            raise UsageError(f"prompt {self.name}: missing {', '.join(sorted(missing))}")
        try:
            return _environment().from_string(self.source).render(values).strip()
        except (TemplateError, TypeError, ValueError, ArithmeticError) as error:
            raise UsageError(f"prompt {self.name} cannot be filled in: {error}") from error


def read_prompt(path: Path, before: Prompt | None = None) -> Prompt:
    """A Markdown template whose front matter lists its variables; `before` is the prompt that it overrides.

    Raises BadFile with the line of what is wrong.
    """
    from jinja2 import TemplateError
    from jinja2.meta import find_undeclared_variables

    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(path, f"cannot be read: {error}") from error
    match = _FRONT.match(text)
    if match is None:
        raise BadFile(path, "has no front matter; begin with ---, `variables: [...]`, ---", 1)
    above = text.count("\n", 0, match.start(2))  # lines of the file before the template's first
    try:
        front = yaml.safe_load(match[1]) or {}
        names = front.get("variables", []) if isinstance(front, dict) else None
        used = find_undeclared_variables(_environment().parse(match[2]))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 2 if error.problem_mark else None
        raise BadFile(path, f"broken front matter: {error.problem}", line) from error
    except (yaml.YAMLError, TemplateError) as error:
        line = above + error.lineno if getattr(error, "lineno", None) else None  # type: ignore[union-attr]
        raise BadFile(path, f"broken template: {getattr(error, 'message', None) or error}", line) from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadFile(path, "its front matter must be `variables: [NAME, …]`", 2)
    if undeclared := sorted(used - set(names)):
        first = re.search(rf"\b{re.escape(undeclared[0])}\b", match[2])
        line = above + 1 + match[2].count("\n", 0, first.start() if first else 0)
        raise BadFile(path, f"uses {', '.join(undeclared)}, not among its variables", line)
    given = before.given if before else frozenset(names)
    if strange := sorted(frozenset(names) - given):
        there = ", ".join(sorted(given)) or "nothing"
        raise BadFile(path, f"nobody gives {', '.join(strange)}; there is {there}", 2)
    return Prompt(path.stem, frozenset(names), match[2], given)
