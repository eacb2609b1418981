"""What a run is asked for: everything that decides what it gives, and what it was made with."""

from __future__ import annotations

import hashlib
import platform
import re
import subprocess
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import auditor
from auditor import models
from auditor.audits.plan import PROMPTS, Plan, agents_of, tools_of
from auditor.config import Settings
from auditor.evidence.recipe import closure, judges_of, named_by
from auditor.evidence.sources import source_hash
from auditor.llm.spec import OFFLINE, parse_spec
from auditor.records.cards import Agent, EvidenceSettings
from auditor.shelves import Shelf
from auditor.workspace import Workspace

PACKAGES = ("torch", "transformers", "peft", "nnsight", "langgraph", "langchain-core", "langchain-openai",
            "sentence-transformers")  # fmt: skip


def request(plan: Plan) -> dict[str, Any]:
    """What has to be the same for a run to be resumed: settings, and the texts and code that they name."""
    ws, suite, settings = plan.workspace, plan.suite, plan.settings
    agents = {name: ws.agents[name] for name in agents_of(suite)}
    judges = {*judges_of(ws, agents.values(), suite.evidence, settings), *suite.graders}
    organisms = plan.organisms()
    lenses, _ = closure(ws.lenses.by_name(), named_by(ws, agents.values()))
    prompts = {name for agent in agents.values() for name in _prompts(agent)}
    if {settings.grader_llm, settings.lens_llm, *dict(settings.llm_roles).values()} != {OFFLINE}:
        prompts |= {name for name in (*ws.prompts.items, *ws.prompts.broken) if name.startswith("grade_")}
    return {
        "variant": plan.variant.model_dump() if plan.variant is not None else None,
        "suite": suite.model_dump(mode="json"),
        "llm": settings.llm,
        "grader_llm": settings.grader_llm,
        "lens_llm": settings.lens_llm,
        "llm_roles": dict(settings.llm_roles),
        "models": {role: _specified(llm) for role, llm in _roles(settings).items()},
        "grader_repeats": settings.grader_repeats,
        "embedder": settings.embedder,
        "graders": list(suite.graders),
        "protocol": plan.protocol.value,
        "seed": plan.seed,
        "agents": {name: agent.model_dump(mode="json") for name, agent in agents.items()},
        "prompts": {name: _hashed(ws.prompts[name].source) for name in sorted(prompts)},
        "organisms": {o.name: _hashed(o.model_dump_json(indent=1)) for o in organisms},
        "rubrics": {
            name: _hashed(ws.rubrics.items[name].path.read_text("utf-8"))
            for name in sorted({o.grading for o in organisms})
        },
        "tools": _plugins(ws.tools, {tool for agent in agents.values() for tool in tools_of(ws, agent)}),
        "lenses": _plugins(ws.lenses, [lens.name for lens in lenses]),
        "plugins": _plugins(ws.graders, judges),
    }


def content_of(ws: Workspace, evidence: EvidenceSettings, settings: Settings, agent: Agent) -> dict[str, str]:
    """Hashes of the texts and the code that decide what this agent is shown, told, and can do."""
    lenses, _ = closure(ws.lenses.by_name(), named_by(ws, [agent]))
    plugins = {
        "tool": _plugins(ws.tools, tools_of(ws, agent)), "lens": _plugins(ws.lenses, [lens.name for lens in lenses]),
        "grader": _plugins(ws.graders, judges_of(ws, [agent], evidence, settings)),
    }  # fmt: skip
    found = {f"{kind} {name}": told["sha256"] for kind, named in plugins.items() for name, told in named.items()}
    found |= {f"prompt {name}": _sha256(ws.prompts[name].source.encode()) for name in _prompts(agent)}
    roles = {f"judge {kind}": llm for kind, llm in settings.llm_roles}
    return found | roles | {"lens_llm": settings.lens_llm, "embedder": settings.embedder}


def _prompts(agent: Agent) -> list[str]:
    return [agent.prompt, *(f"agent_{part}" for part in PROMPTS)]


def _roles(settings: Settings) -> dict[str, str]:
    return {"agent": settings.llm, "grader": settings.grader_llm, "lens": settings.lens_llm, **dict(settings.llm_roles)}


def _specified(llm: str) -> dict[str, Any] | None:
    """All that a role's string says of its model; a key is only named."""
    return None if llm == OFFLINE else parse_spec(llm).model_dump(mode="json", exclude_none=True)


def made_with(settings: Settings, workspace: Workspace) -> dict[str, Any]:
    """Settings of the machine, and versions; they may differ when the run is resumed."""
    return {
        "revision": revision(workspace),
        "settings": settings.model_dump(mode="json"),
        "versions": {
            "auditor": auditor.__version__,
            "python": platform.python_version(),
            **{name: version(name) for name in PACKAGES},
        },
        "code": {"auditor": _own_code(), "evidence": source_hash(Path(models.__path__[0]) / "local.py")},
    }


def revision(workspace: Workspace) -> dict[str, Any] | None:
    """The git commit of the user's workspace, or of a checkout of ours; None if it is in none."""
    name, root = workspace.roots[-1]
    if name == "built-in" and not (root / ".git").exists():  # installed: what lies around it is not ours
        return None

    def git(*command: str) -> str:
        told = ["git", "-c", "core.fsmonitor=false", "-C", str(root), *command]
        return subprocess.run(told, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
        remotes = git("remote", "-v").split()
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return {"commit": commit, "dirty": bool(changes), "origin": without_user(remotes[1]) if remotes else ""}


def without_user(url: str) -> str:
    """An address without the name and password that it may hold."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)


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
