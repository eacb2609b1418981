"""run.json: everything that decides what a run gives, and what it was made with."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import auditor
from auditor.config import Settings
from auditor.evaluation.audit import PROMPTS
from auditor.evidence.recipe import closure, judges_of, named_by
from auditor.evidence.sources import source_hash
from auditor.llm.spec import OFFLINE
from auditor.models import local
from auditor.records.cards import AdapterVariant, Organism, Protocol, Suite
from auditor.shelves import Shelf
from auditor.workspace import Workspace

PACKAGES = ("torch", "transformers", "peft", "nnsight", "langgraph", "langchain-core", "langchain-openai",
            "sentence-transformers")  # fmt: skip


def request(
    ws: Workspace,
    suite: Suite,
    settings: Settings,
    seed: int,
    protocol: Protocol,
    variant: AdapterVariant | None = None,
) -> dict[str, Any]:
    """What has to be the same for a run to be resumed: settings, and the texts and code that they name."""
    judges = {*judges_of(ws, suite, settings), *suite.graders}
    agents = {name: ws.agents[name] for name in suite.agents}
    lenses, _ = closure(ws.lenses.by_name(), named_by(ws, agents.values()))
    organisms = [ws.organisms[name] for name in suite.organisms]
    prompts = {*(agent.prompt for agent in agents.values()), *(f"agent_{part}" for part in PROMPTS)}
    if {settings.grader_llm, settings.lens_llm} != {OFFLINE}:
        prompts |= {name for name in (*ws.prompts.items, *ws.prompts.broken) if name.startswith("grade_")}
    return {
        "variant": variant.model_dump() if variant is not None else None,
        "suite": suite.model_dump(mode="json"),
        "llm": settings.llm,
        "grader_llm": settings.grader_llm,
        "lens_llm": settings.lens_llm,
        "grader_repeats": settings.grader_repeats,
        "embedder": settings.embedder,
        "graders": list(suite.graders),
        "protocol": protocol.value,
        "seed": seed,
        "agents": {name: agent.model_dump(mode="json") for name, agent in agents.items()},
        "prompts": {name: _hashed(ws.prompts[name].source) for name in sorted(prompts)},
        "organisms": {o.name: _hashed(o.model_dump_json(indent=1, exclude=_unsaid(o))) for o in organisms},
        "rubrics": {
            name: _hashed(ws.rubrics.items[name].path.read_text("utf-8"))
            for name in sorted({o.grading for o in organisms})
        },
        "tools": _plugins(ws.tools, {tool for agent in agents.values() for tool in agent.tools}),
        "lenses": _plugins(ws.lenses, [lens.name for lens in lenses]),
        "plugins": _plugins(ws.graders, judges),
    }


def made_with(settings: Settings) -> dict[str, Any]:
    """Settings of the machine, and versions; they may differ when the run is resumed."""
    return {
        "settings": settings.model_dump(mode="json"),
        "versions": {
            "auditor": auditor.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "code": {"auditor": _own_code(), "evidence": source_hash(Path(local.__file__))},
    }


def _unsaid(card: Organism) -> set[str]:
    """Fields that came later than the first runs, and that a card says nothing in."""
    return set() if card.variant is not None else {"variant"}


def _plugins(shelf: Shelf[Any], names: Iterable[str]) -> dict[str, Any]:
    """Where each is from, and the hash of its file."""
    told = {}
    for name in sorted(names):
        shelf[name]  # raises if it is broken
        item = shelf.items[name]
        told[name] = {"from": item.root, "file": item.path.name, "sha256": _sha256(item.path.read_bytes())}
    return told


def _hashed(text: str) -> dict[str, str]:
    return {"sha256": _sha256(text.encode()), "text": text}


@lru_cache(maxsize=1)
def _own_code() -> str:
    files = sorted(Path(auditor.__file__).parent.rglob("*.py"))
    return _sha256(b"".join(path.read_bytes() for path in files))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
