"""The site's sources, put together in `build/docs`: what lies in `docs/`, and the reference, made from the code.

python docs/reference.py  # then: zensical build --strict (`make docs` does both)
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import auditor
from auditor.config import ENVIRONMENT, Settings
from auditor.records import cards, checks, public
from auditor.records.calibration import Label
from auditor.workspace import Workspace, load_workspace

ROOT = Path(__file__).parent.parent
STAGE = ROOT / "build" / "docs"
BESIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}  # of the repository's root
MADE = "Made from the code of auditor {version} when this site was built.\n\n"

# What a workspace's files hold, by file; what is named inside them follows each.
FILES: dict[str, tuple[str, type[Any]]] = {
    "Organism": ("`evals/organisms/NAME/organism.yaml`", cards.Organism),
    "Checks of an organism": ("`evals/organisms/NAME/checks.yaml`", checks.Checks),
    "Suite": ("`evals/suites/NAME.yaml`", cards.Suite),
    "Agent": ("`evals/agents/NAME.yaml`", cards.Agent),
    "Rubric": ("`rubrics/NAME.yaml`", cards.Rubric),
    "Public models": ("`evals/models.yaml`", public.PublicModels),
    "Datasets": ("`evals/datasets.yaml`", public.Datasets),
    "Labels": ("A line of what `auditor graders calibrate` is given", Label),
    "Settings": ("Table `[settings]` of `auditor.toml`", Settings),
}


def pages() -> dict[str, str]:
    """Every page of the reference, by its name."""
    ws = load_workspace(packages=False)
    made = MADE.format(version=auditor.__version__)
    parts = {"cli": cli(), "python": python(), "fields": fields(), "plugins": plugins(ws), "http": http()}
    titles = {"cli": "Command line", "python": "Python", "fields": "Fields of files", "plugins": "Built-in plugins",
              "http": "HTTP routes"}  # fmt: skip
    return {name: f"# {titles[name]}\n\n{made}" + "\n".join(lines) + "\n" for name, lines in parts.items()}


def stage(into: Path = STAGE) -> Path:
    """Write all sources of the site anew. Whatever else lies in `into` is deleted."""
    shutil.rmtree(into, ignore_errors=True)
    shutil.copytree(ROOT / "docs", into, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for name, target in BESIDE.items():
        shutil.copy(ROOT / name, into / target)
    (into / "reference").mkdir()
    for name, text in pages().items():
        (into / "reference" / f"{name}.md").write_text(text, encoding="utf-8")
    return into


def cli() -> Iterator[str]:
    """Every command of the typer app with its arguments and options."""
    import typer

    from auditor.cli.app import app

    root = typer.main.get_command(app)
    yield "Options of `auditor` itself stand before the command: `auditor --no-workspace evidence gold`.\n"
    yield from _options(root)
    yield from _commands(root, typer.Context(root, info_name="auditor"))


def _commands(group: Any, ctx: Any) -> Iterator[str]:
    import typer

    for name, command in group.commands.items():
        inner = typer.Context(command, info_name=name, parent=ctx)
        if hasattr(command, "commands"):
            yield f"## auditor {name}\n\n{_text(command.help)}\n"
            yield from _commands(command, inner)
            continue
        yield f"{'##' if ctx.parent is None else '###'} {inner.command_path}\n"
        arguments = [_called(param) for param in command.params if param.param_type_name == "argument"]
        yield f"`{' '.join([inner.command_path, '[OPTIONS]', *arguments])}`\n"
        yield _text(command.help) + "\n"
        yield from _options(command)


def _options(command: Any) -> Iterator[str]:
    rows = []
    for param in command.params:
        if param.hidden or param.name in ("help", "install_completion", "show_completion"):
            continue
        told = "" if param.default in (None, False, (), []) or callable(param.default) else f"`{param.default}`"
        rows.append((f"`{_cell(_called(param))}`", _cell(param.help or ""), told))
    yield from _table(("", "", "default"), rows)


def _called(param: Any) -> str:
    """How it is written on the command line."""
    if param.param_type_name == "argument":
        name = param.metavar or param.name.upper() + ("…" if param.nargs == -1 else "")
        return name if param.required else f"[{name}]"
    names = ", ".join([*param.opts, *param.secondary_opts])
    kind = param.type_descriptor.annotation
    known = {int: "N", float: "X", str: "TEXT", Path: "PATH"}
    told = (
        "|".join(kind) if hasattr(kind, "__members__") else known.get(kind, "VALUE" if param.nargs == 1 else "VALUES")
    )
    return names if param.is_flag else f"{names} {param.metavar or told}"


def python() -> Iterator[str]:
    """What `import auditor` gives: signatures and docstrings."""
    yield "Everything here is imported from `auditor`; methods are those with a docstring of their own.\n"
    for name in auditor.__all__:
        thing = getattr(auditor, name)
        yield f"## {name}\n"
        if not inspect.isclass(thing):
            yield f"{_signature(name, thing)}\n\n{_text(inspect.getdoc(thing))}\n"
            continue
        yield f"class of `{thing.__module__}`. {_text(inspect.getdoc(thing))}\n"
        if fields_of := getattr(thing, "model_fields", None):
            yield from _model(thing, fields_of)
        for key, member in vars(thing).items():
            if key.startswith("_") or not (doc := inspect.getdoc(_function(member))) or key in (fields_of or {}):
                continue
            if inspect.isfunction(_function(member)):
                called = f"`.{key}`" if isinstance(member, property) else _signature(f".{key}", _function(member))
                yield f"{called}\n\n{_text(doc)}\n"


def _function(member: Any) -> Any:
    return member.fget if isinstance(member, property) else getattr(member, "__func__", member)


def _signature(name: str, thing: Any) -> str:
    try:
        return f"`{name}{inspect.signature(thing)}`"
    except (TypeError, ValueError):
        return f"`{name}(…)`"


def fields() -> Iterator[str]:
    """Every field of cards, suites, rubrics, checks and settings, with type, default and meaning."""
    yield "A field that is not here is an error with its line; so is a value of another type.\n"
    for title, (path, model) in FILES.items():
        yield f"## {title}\n\n{path}. {_text(inspect.getdoc(model))}\n"
        if model is Settings:
            rows = ((f"`{name}`", f"`{variable}`") for name, variable in ENVIRONMENT.items())
            yield "A flag goes before the environment's variable, that before the file:\n"
            yield from _table(("setting", "variable"), rows)
        yield from _model(model, model.model_fields)
        for part in _inside(model):
            yield f"### {title}: {part.__name__}\n\n{_text(inspect.getdoc(part))}\n"
            yield from _model(part, part.model_fields)


def _inside(model: type[Any]) -> list[type[Any]]:
    """Records that its fields hold, and that those hold, in the order in which they are met."""
    from pydantic import BaseModel

    found: dict[type[Any], None] = {}

    def walk(kind: Any) -> None:
        if inspect.isclass(kind) and issubclass(kind, BaseModel) and kind not in found and kind is not model:
            found[kind] = None
            for field in kind.model_fields.values():
                walk(field.annotation)
        for part in getattr(kind, "__args__", ()):
            walk(part)

    for field in model.model_fields.values():
        walk(field.annotation)
    return list(found)


def plugins(ws: Workspace) -> Iterator[str]:
    """Tools, lenses, graders as they are loaded, and the names of all that is declared."""
    yield "`auditor tools show NAME` and the like tell the same of your own.\n"
    yield "## Lenses\n"
    for lens in ws.lenses.by_name().values():
        needs = f" Needs {', '.join(f'`{name}`' for name in lens.needs)}." if lens.needs else ""
        yield f"### {lens.name}\n\n{_text(lens.description)}{needs} Settings:\n"
        yield from _model(lens.settings, lens.settings.model_fields)
    yield "## Tools\n"
    for tool in ws.tools.by_name().values():
        cost = "free" if tool.free else "costs interactions"
        yield f"### {tool.name}\n\n{_text(tool.description)}\n\nArguments ({cost}):\n"
        yield from _model(tool.args, tool.args.model_fields)
    yield "## Graders\n"
    rows = ((f"`{g.name}`", g.kind, _cell(g.description), g.instead_of) for g in ws.graders.by_name().values())
    yield from _table(("grader", "grades", "", "stands in for"), rows)
    yield "## Agents\n"
    agents = ws.agents.by_name().values()
    yield from _table(
        ("agent", "", "overview", "tools"),
        ((f"`{a.name}`", _cell(a.description), ", ".join(a.overview), ", ".join(a.tools)) for a in agents),
    )
    yield "## Suites\n"
    suites = ws.suites.by_name().values()
    yield from _table(("suite", "", "organisms"),
                      ((f"`{s.name}`", _cell(s.description), str(len(s.organisms))) for s in suites))  # fmt: skip
    yield "## Prompts\n"
    prompts = ws.prompts.by_name()
    yield from _table(("prompt", "variables"), ((f"`{n}`", ", ".join(p.variables)) for n, p in prompts.items()))


def http() -> Iterator[str]:
    """The model server's routes and bodies, from its OpenAPI description."""
    described = _openapi()
    yield "`auditor serve` shows the same at `/docs`, and as OpenAPI at `/openapi.json`.\n"
    for path, methods in described["paths"].items():
        for method, told in methods.items():
            yield f"## {method.upper()} {path}\n\n{_text(told.get('description'))}\n"
            body = json.dumps(told.get("requestBody", {}))
            if '"$ref"' in body:
                name = body.partition("/schemas/")[2].partition('"')[0]
                yield f"Body: [{name}](#{name.lower()}).\n"
    for name, schema in described["components"]["schemas"].items():
        if "properties" in schema:
            yield f"## {name}\n\n{_text(schema.get('description'))}\n"
            needed = schema.get("required", [])
            rows = ((f"`{key}`", _cell(_json_kind(of)), "required" if key in needed else _told(of.get("default")))
                    for key, of in schema["properties"].items())  # fmt: skip
            yield from _table(("field", "", "default"), rows)


def _openapi() -> dict[str, Any]:
    """What FastAPI says of the server's routes; no model is loaded for it."""
    from starlette.testclient import TestClient

    from auditor.server.app import create_app
    from auditor.server.library import Library
    from auditor.server.metrics import Metrics
    from auditor.server.serving import Serving

    library = Library({}, load_workspace(packages=False), Settings())
    app = create_app(Serving(library, Metrics(library)), key="demanded of all but this")
    described: dict[str, Any] = TestClient(app).get("/openapi.json").json()
    return described


def _json_kind(schema: Mapping[str, Any]) -> str:
    from auditor.server.docs import _kind

    return _kind(dict(schema))


def _model(model: type[Any], fields_of: Mapping[str, Any]) -> Iterable[str]:
    rows = [
        (f"`{name}`", f"`{_type(field.annotation)}`", _default(field), _cell(_about(model, name, field)))
        for name, field in fields_of.items()
        if not field.exclude
    ]
    return _table(("field", "type", "default", ""), rows)


def _about(model: type[Any], name: str, field: Any) -> str:
    limits = [f"{sign} {getattr(mark, key)}" for mark in field.metadata
              for key, sign in (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<")) if hasattr(mark, key)]  # fmt: skip
    return "; ".join(filter(None, [field.description or "", ", ".join(limits)]))


def _type(kind: Any) -> str:
    """A type as people write it: no modules, no marks of pydantic's."""
    if kind is type(None):
        return "null"
    if args := getattr(kind, "__args__", ()):
        origin = getattr(kind, "__origin__", None)
        if hasattr(kind, "__metadata__"):
            return _type(args[0])
        name = getattr(origin, "__name__", "")
        inner = [json.dumps(arg) if isinstance(arg, str) else "…" if arg is ... else _type(arg) for arg in args]
        if name in ("tuple", "list", "Sequence"):
            return f"list of {inner[0]}"
        if name in ("dict", "Mapping"):
            return f"{{{inner[0]}: {inner[1]}}}"
        return " or ".join(inner) if name in ("", "Union", "Literal", "UnionType") else f"{name}[{', '.join(inner)}]"
    if inspect.isclass(kind) and hasattr(kind, "__members__"):
        return " or ".join(kind.__members__[key].value for key in kind.__members__)
    return getattr(kind, "__name__", str(kind))


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    return _told(field.default if field.default_factory is None else None)


def _told(value: Any) -> str:
    if value is None or value == "" or value == () or value == {} or type(value).__name__ == "PydanticUndefinedType":
        return ""
    if hasattr(type(value), "model_fields"):
        return "its own"
    shown = [str(v) for v in value] if isinstance(value, tuple) and isinstance(value[0], str) else value
    return f"`{list(shown) if isinstance(shown, tuple) else shown}`".replace("|", "\\|")


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    rows = list(rows)
    if rows:
        yield "\n".join(
            [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads), *(f"| {' | '.join(r)} |" for r in rows)]
        )
        yield ""


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|").replace("\n", " ")


def _text(text: str | None) -> str:
    """A docstring as Markdown: nothing in it is HTML."""
    return inspect.cleandoc(text or "").replace("<", "&lt;")


if __name__ == "__main__":
    print(stage().relative_to(ROOT))
