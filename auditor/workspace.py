"""Workspaces: folders of plugins and declarative files, laid over each other by name.

The built-in workspace, installed packages' (entry points `auditor.workspaces`) and the user's own go
through the same code here; later ones override earlier ones.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

import yaml
from jinja2 import Environment, StrictUndefined, TemplateError
from pydantic import BaseModel, ValidationError

import auditor
from auditor.errors import BadFile, UnknownName, UsageError
from auditor.plugins import Grader, Tool
from auditor.types import Agent, Organism, Rubric, Suite

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

MARKER = "auditor.toml"
ENTRY_POINTS = "auditor.workspaces"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A Jinja template with its declared variables."""

    name: str
    variables: frozenset[str]
    source: str

    def render(self, **values: Any) -> str:
        """Raises UsageError if the variables given are not those declared."""
        if missing := self.variables - values.keys():
            raise UsageError(f"prompt {self.name}: missing {', '.join(sorted(missing))}")
        env = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
        return env.from_string(self.source).render(values).strip()


@dataclass(frozen=True, slots=True)
class Loaded(Generic[T]):
    """A thing with the file it is from, and the files whose namesakes it overrides."""

    value: T
    path: Path
    root: str
    overrides: tuple[Path, ...] = ()


@dataclass
class Shelf(Generic[T]):
    """All things of one kind, by name. A broken file is kept as its error until somebody needs it."""

    kind: str
    items: dict[str, Loaded[T]] = field(default_factory=dict)
    broken: dict[str, BadFile] = field(default_factory=dict)

    def put(self, name: str, value: T, path: Path, root: str) -> None:
        before = self.items.get(name)
        hidden = (*before.overrides, before.path) if before else ()
        self.items[name] = Loaded(value, path, root, hidden)

    def __getitem__(self, name: str) -> T:
        if name not in self.items and name in self.broken:
            raise self.broken[name]
        if name not in self.items:
            raise UnknownName(self.kind, name, [*self.items, *self.broken])
        return self.items[name].value

    def __iter__(self) -> Iterator[Loaded[T]]:
        return iter(self.items.values())


@dataclass
class Workspace:
    """Everything that can be named on the command line."""

    roots: list[tuple[str, Path]]
    tools: Shelf[Tool] = field(default_factory=lambda: Shelf("tool"))
    graders: Shelf[Grader] = field(default_factory=lambda: Shelf("grader"))
    agents: Shelf[Agent] = field(default_factory=lambda: Shelf("agent"))
    organisms: Shelf[Organism] = field(default_factory=lambda: Shelf("organism"))
    suites: Shelf[Suite] = field(default_factory=lambda: Shelf("suite"))
    rubrics: Shelf[Rubric] = field(default_factory=lambda: Shelf("rubric"))
    prompts: Shelf[Prompt] = field(default_factory=lambda: Shelf("prompt"))
    corpora: Shelf[Path] = field(default_factory=lambda: Shelf("corpus"))
    nulls: Shelf[Path] = field(default_factory=lambda: Shelf("directions of broad finetunes"))

    def shelves(self) -> list[Shelf[Any]]:
        return [
            self.tools, self.graders, self.agents, self.organisms,
            self.suites, self.rubrics, self.prompts, self.corpora, self.nulls,
        ]  # fmt: skip


def builtin_root() -> Path:
    """The built-in workspace: inside an installed wheel, else the repository."""
    package = Path(auditor.__file__).parent
    packed = package / "_builtin"
    return packed if packed.is_dir() else package.parent


def find_user_root(given: Path | None = None) -> Path | None:
    """The user's workspace: `given`, AUDITOR_WORKSPACE, or the nearest folder above with an auditor.toml.

    Raises UsageError if one is named but has no auditor.toml: plugins are code, and load from nowhere else.
    """
    named = given or (Path(os.environ["AUDITOR_WORKSPACE"]) if os.environ.get("AUDITOR_WORKSPACE") else None)
    if named is not None:
        if not (named / MARKER).is_file():
            raise UsageError(f"{named} is no workspace: it has no {MARKER}; `auditor init {named}` writes one")
        return named.resolve()
    here = Path.cwd()
    return next((folder for folder in (here, *here.parents) if (folder / MARKER).is_file()), None)


def load_workspace(user_root: Path | None = None) -> Workspace:
    """Read all roots, in order: built-in, installed packages', the user's."""
    roots = [("built-in", builtin_root())]
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        spec = importlib.util.find_spec(entry.value)
        if spec is not None and spec.origin is not None:
            roots.append((f"package {entry.name}", Path(spec.origin).parent))
    if user_root is not None:
        roots.append(("workspace", user_root))
    workspace = Workspace(roots)
    for name, root in roots:
        _load_root(workspace, name, root)
    return workspace


def _load_root(ws: Workspace, name: str, root: Path) -> None:
    _plugins(ws.tools, Tool, root / "tools", name)
    _plugins(ws.graders, Grader, root / "graders", name)
    _files(ws.agents, root / "evals" / "agents", "*.yaml", name, lambda p: read_yaml(p, Agent))
    _files(ws.suites, root / "evals" / "suites", "*.yaml", name, lambda p: read_yaml(p, Suite))
    _files(ws.rubrics, root / "rubrics", "*.yaml", name, lambda p: read_yaml(p, Rubric))
    _files(ws.prompts, root / "prompts", "*.md", name, read_prompt)
    _files(ws.organisms, root / "evals" / "organisms", "*/organism.yaml", name, read_organism)
    for path in sorted((root / "evals" / "corpora").glob("*.jsonl.gz")):
        ws.corpora.put(path.name.split(".")[0], path, path, name)
    for path in sorted((root / "evals" / "nulls").glob("*.safetensors")):
        ws.nulls.put(path.stem, path, path, name)


def _files(shelf: Shelf[Any], folder: Path, pattern: str, root: str, read: Callable[[Path], Any]) -> None:
    for path in sorted(folder.glob(pattern)):
        expected = path.parent.name if "/" in pattern else path.stem
        try:
            value = read(path)
            if value.name != expected:
                raise BadFile(path, f"its name is {value.name!r}, but the file says {expected!r}")
            shelf.put(value.name, value, path, root)
        except BadFile as error:
            shelf.broken[expected] = error


def _plugins(shelf: Shelf[Any], kind: type[Any], folder: Path, root: str) -> None:
    for path in sorted(folder.glob("[!_]*.py")):
        try:
            found = [value for value in vars(import_plugin(path)).values() if isinstance(value, kind)]
            if not found:
                raise BadFile(path, f"defines no @{kind.__name__.lower()}")
            for plugin in found:
                shelf.put(plugin.name, plugin, path, root)
        except BadFile as error:
            shelf.broken[path.stem] = error


def import_plugin(path: Path) -> ModuleType:
    """Run a plugin file as a module of its own. Raises BadFile with the line that failed."""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    name = f"_auditor_plugin_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic resolves annotations through it
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise BadFile(path, f"syntax error: {error.msg}", error.lineno) from error
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        raise BadFile(path, f"{type(error).__name__}: {error}", frames[-1].lineno if frames else None) from error
    return module


def read_yaml(path: Path, model: type[M]) -> M:
    """Raises BadFile with the line of the first mistake."""
    try:
        text = path.read_text()
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        raise BadFile(path, f"broken YAML: {getattr(error, 'problem', None) or error}", line) from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(path, f"cannot be read: {error}") from error
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        key = next((str(part) for part in reversed(first["loc"]) if isinstance(part, str)), "")
        found = re.search(rf"^\s*{re.escape(key)}\s*:", text, re.M) if key else None
        line = text.count("\n", 0, found.end()) + 1 if found else 1
        raise BadFile(path, f"{where or 'file'}: {first['msg']}", line) from error


def read_organism(path: Path) -> Organism:
    """A card; its folder is remembered, so that its adapter and documents are found beside it."""
    organism = read_yaml(path, Organism)
    organism._folder = path.parent
    return organism


def read_prompt(path: Path) -> Prompt:
    """A Markdown template whose front matter lists its variables."""
    match = re.match(r"---\n(.*?)\n---\n(.*)", path.read_text(), re.S)
    if match is None:
        raise BadFile(path, "has no front matter; begin with ---, `variables: [...]`, ---", 1)
    try:
        front = yaml.safe_load(match[1]) or {}
        Environment(undefined=StrictUndefined).parse(match[2])
    except (yaml.YAMLError, TemplateError) as error:
        raise BadFile(path, f"broken template: {error}", getattr(error, "lineno", None)) from error
    return Prompt(path.stem, frozenset(front.get("variables", [])), match[2])
