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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import auditor
from auditor.errors import BadFile, UsageError
from auditor.extending import ORGANISMS_OWN, SUITES_OWN, Draft, finish, read_draft
from auditor.lenses import Lens
from auditor.plugins import Grader, Tool
from auditor.prompts import Prompt, read_prompt
from auditor.public import finetune_of
from auditor.records.calibration import Calibration
from auditor.records.cards import Agent, Organism, Rubric, Suite
from auditor.records.public import Dataset, Datasets, PublicModel, PublicModels
from auditor.shelves import Broken, Shelf
from auditor.yaml_files import read_document, read_yaml

T = TypeVar("T")

MARKER = "auditor.toml"
ENTRY_POINTS = "auditor.workspaces"
PLUGINS = ("tools", "graders")


@dataclass
class Workspace:
    """Everything that can be named on the command line."""

    roots: list[tuple[str, Path]]
    lost: list[str] = field(default_factory=list)  # packages whose workspace could not be read, and why
    tools: Shelf[Tool] = field(default_factory=lambda: Shelf("tool"))
    lenses: Shelf[Lens] = field(default_factory=lambda: Shelf("lens"))
    graders: Shelf[Grader] = field(default_factory=lambda: Shelf("grader"))
    agents: Shelf[Agent] = field(default_factory=lambda: Shelf("agent"))
    organisms: Shelf[Organism] = field(default_factory=lambda: Shelf("organism"))
    models: Shelf[PublicModel] = field(default_factory=lambda: Shelf("public model"))
    datasets: Shelf[Dataset] = field(default_factory=lambda: Shelf("dataset"))
    suites: Shelf[Suite] = field(default_factory=lambda: Shelf("suite"))
    rubrics: Shelf[Rubric] = field(default_factory=lambda: Shelf("rubric"))
    prompts: Shelf[Prompt] = field(default_factory=lambda: Shelf("prompt"))
    calibrations: Shelf[Calibration] = field(default_factory=lambda: Shelf("calibration"))
    corpora: Shelf[Path] = field(default_factory=lambda: Shelf("corpus"))
    nulls: Shelf[Path] = field(default_factory=lambda: Shelf("directions of broad finetunes"))

    def shelves(self) -> list[Shelf[Any]]:
        return [
            self.tools, self.lenses, self.graders, self.agents, self.organisms, self.models,
            self.datasets, self.suites, self.rubrics, self.prompts, self.calibrations, self.corpora, self.nulls,
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
        named = named.expanduser()
        if not (named / MARKER).is_file():
            raise UsageError(f"{named} is no workspace: it has no {MARKER}; `auditor init {named}` writes one")
        return named.resolve()
    try:
        here = Path.cwd()
    except FileNotFoundError as error:
        raise UsageError("the current folder is gone; change to one that is there") from error
    return next((folder for folder in (here, *here.parents) if (folder / MARKER).is_file()), None)


def load_workspace(
    user_root: Path | None = None, *, packages: bool = True, tell: Callable[[str], None] = lambda line: None
) -> Workspace:
    """Read all roots, in order: built-in, installed packages' (with `packages`), the user's.

    `tell` is given the plugin files of each root that is not built in before any of them is run.
    """
    roots, lost = [("built-in", builtin_root())], list[str]()
    if packages:
        roots += _package_roots(lost)
    if user_root is not None:
        roots.append(("workspace", user_root))
    workspace = Workspace(roots, lost)
    workspace.organisms.inside = partial(finetune_of, models=workspace.models)
    drafts: dict[type[Any], Shelf[Draft]] = {Suite: Shelf("suite"), Organism: Shelf("organism")}
    for name, root in roots:
        if name != "built-in":
            files = [path for folder in PLUGINS for path in _plugin_files(root / folder)]
            listed = ", ".join(str(path.relative_to(root)) for path in files)
            tell(f"loading plugins of {root}: {listed}" if files else f"{name} {root} (no plugins)")
        _load_root(workspace, drafts, name, root)
    finish(drafts[Suite], workspace.suites, Suite, SUITES_OWN)
    finish(drafts[Organism], workspace.organisms, Organism, ORGANISMS_OWN, _lying_beside)
    _check_rubrics(workspace)
    _check_lens_settings(workspace)
    for shelf in workspace.shelves():
        shelf.lost = lost
    return workspace


def _check_rubrics(ws: Workspace) -> None:
    """A card that names a rubric which there is not is broken."""
    for name, item in list(ws.organisms.items.items()):
        wanted = item.value.rubric
        if wanted and wanted not in ws.rubrics.by_name():
            line = read_document(item.path).find(["rubric"]).line
            known = ", ".join(sorted(ws.rubrics.items))
            error = BadFile(item.path, f"rubric: there is no rubric {wanted!r}; known: {known}", line)
            del ws.organisms.items[name]
            ws.organisms.broken[name] = Broken(error, item.root, item.overrides)


def _check_lens_settings(ws: Workspace) -> None:
    """A suite that sets up a lens wrongly, or one that there is not, is broken."""
    for name, item in list(ws.suites.items.items()):
        for lens, given in item.value.evidence.lenses.items():
            try:
                if lens not in ws.lenses.broken:  # which is told by what runs it
                    ws.lenses[lens].fitting(given)
            except UsageError as error:
                line = read_document(item.path).find(["evidence", "lenses", lens]).line
                broken = BadFile(item.path, f"evidence: lenses: {error}", line)
                ws.suites.items.pop(name, None)
                ws.suites.broken[name] = Broken(broken, item.root, item.overrides)


def _package_roots(lost: list[str]) -> list[tuple[str, Path]]:
    """The folders that entry points name; for each that cannot be found a line in `lost`."""
    found = []
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        try:
            spec = importlib.util.find_spec(entry.module)  # runs the packages around a dotted name
            folders = list(spec.submodule_search_locations or []) if spec else []
            if not folders:
                raise UsageError("no package of this name is installed" if spec is None else "it is no package")
            found.append((f"package {entry.name}", Path(folders[0])))
        except (Exception, SystemExit) as error:
            reason = str(error) if isinstance(error, UsageError) else f"{type(error).__name__}: {error}"
            lost.append(f"package {entry.name}: its workspace {entry.value} is left out: {reason}")
    return found


def _load_root(ws: Workspace, drafts: Mapping[type[Any], Shelf[Draft]], name: str, root: Path) -> None:
    _plugins({Tool: ws.tools, Lens: ws.lenses}, root / "tools", name)
    _plugins({Grader: ws.graders}, root / "graders", name)
    _files(ws.agents, root / "evals" / "agents", "*.yaml", name, lambda p: read_yaml(p, Agent))
    for model, pattern in ((Suite, "suites/*.yaml"), (Organism, "organisms/*/organism.yaml")):
        _drafts(drafts[model], root / "evals", pattern, name, model)
    _many(ws.models, root / "evals" / "models.yaml", name, lambda p: read_yaml(p, PublicModels).models)
    _many(ws.datasets, root / "evals" / "datasets.yaml", name, lambda p: read_yaml(p, Datasets).datasets)
    _files(ws.rubrics, root / "rubrics", "*.yaml", name, lambda p: read_yaml(p, Rubric))
    _files(ws.prompts, root / "prompts", "*.md", name, lambda p: read_prompt(p, _before(ws.prompts, p.stem)))
    _files(ws.calibrations, root / "evals" / "calibrations", "*.json", name, lambda p: read_yaml(p, Calibration))
    corpora = root / "evals" / "corpora"
    for path in sorted((*corpora.glob("*.jsonl"), *corpora.glob("*.jsonl.gz"))):
        ws.corpora.put(path.name.split(".")[0], path, path, name)
    for path in sorted((root / "evals" / "nulls").glob("*.safetensors")):
        ws.nulls.put(path.stem, path, path, name)


def _files(shelf: Shelf[Any], folder: Path, pattern: str, root: str, read: Callable[[Path], Any]) -> None:
    for path in sorted(folder.glob(pattern)):
        what, expected = ("folder", path.parent.name) if "/" in pattern else ("file", path.stem)
        try:
            value = read(path)
            if value.name != expected:
                raise BadFile(
                    path, f"its name is {value.name!r}, but its {what} is called {expected!r}; they must agree"
                )
            shelf.put(value.name, value, path, root)
        except BadFile as error:
            shelf.fail({expected, *_claimed(path, _YAML_NAME)}, error, root)


def _many(shelf: Shelf[T], path: Path, root: str, read: Callable[[Path], Mapping[str, T]]) -> None:
    """One file for all of a root, where each thing is a line."""
    if not path.exists():
        return
    try:
        for name, value in read(path).items():
            shelf.put(name, value, path, root)
    except BadFile as error:
        shelf.fail([path.stem], error, root)


def _drafts(shelf: Shelf[Draft], folder: Path, pattern: str, root: str, model: type[Suite | Organism]) -> None:
    kind, _, below = pattern.partition("/")
    _files(
        shelf, folder / kind, below, root,
        lambda p: read_draft(p, _before(shelf, p.parent.name if "/" in below else p.stem), model),
    )  # fmt: skip


def _lying_beside(card: Organism, files: Sequence[Path]) -> None:
    """Its files lie beside it, or beside those that it extends."""
    card._folders = tuple(path.parent for path in files)


def _before(shelf: Shelf[T], name: str) -> T | None:
    """What of that name was there before."""
    there = shelf.items.get(name)
    return there.value if there else None


def _plugin_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("[!_]*.py"))


def _plugins(shelves: Mapping[type[Any], Shelf[Any]], folder: Path, root: str) -> None:
    """Every plugin of the kinds in `shelves`; a tool is told which lenses are in its file."""
    mine: dict[tuple[type[Any], str], Path] = {}
    for path in _plugin_files(folder):
        try:
            found = [value for value in vars(import_plugin(path)).values() if _is_own(value, tuple(shelves), path)]
            if not found:
                raise BadFile(path, f"defines no {' or '.join(f'@{kind.__name__.lower()}' for kind in shelves)}")
            lenses = tuple(plugin.name for plugin in found if isinstance(plugin, Lens))
            for plugin in found:
                key = (type(plugin), plugin.name)
                if key in mine:
                    raise BadFile(path, f"{plugin.name} is defined in {mine[key].name} too; one must go")
                mine[key] = path
                whole = replace(plugin, lenses=lenses) if isinstance(plugin, Tool) else plugin
                shelves[type(plugin)].put(plugin.name, whole, path, root)
        except BadFile as error:
            for kind, shelf in shelves.items():
                claimed = _claimed(path, _PLUGIN_NAMES[kind])
                shelf.fail(claimed or ([path.stem] if kind is next(iter(shelves)) else []), error, root)


def _is_own(value: Any, kinds: tuple[type[Any], ...], path: Path) -> bool:
    """Whether a plugin is the file's own; a lens may be imported from another module, to build on."""
    return isinstance(value, kinds) and (not isinstance(value, Lens) or value.path == path)


_YAML_NAME = re.compile(r"""^name:\s*["']?([\w.-]+)""", re.M)


def _plugin_name(decorator: str) -> re.Pattern[str]:
    return re.compile(
        rf"^@(?:auditor\.)?{decorator}\b.*\n"  # the decorator, which may go on over several lines,
        r"(?:(?!def |class ).*\n)*?"
        r"(?:def|class) (\w+)",
        re.M,
    )


_PLUGIN_NAMES = {kind: _plugin_name(kind.__name__.lower()) for kind in (Tool, Lens, Grader)}


def _claimed(path: Path, names: re.Pattern[str]) -> list[str]:
    """The names that a broken file says it defines, as far as that can be seen without understanding it."""
    try:
        return names.findall(path.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return []


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
    except (Exception, SystemExit) as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        raise BadFile(path, f"{type(error).__name__}: {error}", frames[-1].lineno if frames else None) from error
    return module
