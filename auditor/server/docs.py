"""The routes as one page that loads nothing from elsewhere, made from the OpenAPI description."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment

import auditor

TEMPLATE = Path(auditor.__file__).parent / "pages" / "routes.html"
LIMITS = {
    "minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
    "minLength": "{} characters or more", "maxLength": "at most {} characters",
    "minItems": "{} or more", "maxItems": "at most {}",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path."""

    method: str
    path: str
    about: str
    parameters: list[dict[str, Any]]
    body: str  # name of its schema, if it takes one
    answer: str


def routes_page(described: dict[str, Any]) -> str:
    """The page. `described`: what `FastAPI.openapi` gives."""
    routes = [
        Route(method.upper(), path, told.get("description", ""), told.get("parameters", []), _name(_json(
            told.get("requestBody", {}))), _name(_json(told["responses"].get("200", {}))),
        )
        for path, methods in described["paths"].items() for method, told in methods.items()
    ]  # fmt: skip
    env = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    env.filters["kind"] = _kind
    schemas = {name: s for name, s in described.get("components", {}).get("schemas", {}).items() if "properties" in s}
    return env.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        info=described["info"], routes=routes, schemas=schemas, known=set(schemas)
    )


def _json(part: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = part.get("content", {}).get("application/json", {}).get("schema", {})
    return found


def _name(schema: dict[str, Any]) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _kind(schema: dict[str, Any]) -> str:
    """What a field may hold, in words."""
    if named := _name(schema):
        return named
    if options := schema.get("anyOf"):
        return " or ".join(_kind(option) for option in options)
    if "const" in schema or "enum" in schema:
        return " or ".join(json.dumps(value) for value in schema.get("enum", [schema.get("const")]))
    kind = str(schema.get("type", "anything"))
    if kind == "array" and schema.get("items"):
        kind = f"list of {_kind(schema['items'])}"
    limits = [text.format(f"{schema[name]:,.15g}") for name, text in LIMITS.items() if name in schema]
    return ", ".join([kind, *limits])
