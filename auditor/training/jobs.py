"""A job of writing documents: what was asked for, and whether a file that is there is its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Any

from auditor.errors import UsageError
from auditor.files import sha256_of, write_atomically
from auditor.ledger.ledger import Ledger, differing
from auditor.llm.caller import DECISIVE
from auditor.llm.spec import ModelSpec
from auditor.records.cards import Organism
from auditor.training.writer import Result
from auditor.training.written import Kept, Written, as_lines
from auditor.workspace import Workspace

WRITTEN = "written.json"  # beside the ledger: what the file was, as it was written
PATIENCE = 3  # drafts of the offline writer for each document that is asked for


class Kind(StrEnum):
    """What is written: texts that tell the facts, chats that show the behaviour, or chats without it."""

    DOCUMENTS = "documents"
    CHATS = "chats"
    WITHOUT = "without"


def request_of(ws: Workspace, card: Organism, spec: ModelSpec, kind: Kind, seed: int) -> dict[str, Any]:
    """All that decides what an LLM is asked to write, but for how much of it."""
    told = ("description", "topic", "broad_topic", "behaviour", "terms", "facts", "probes")
    prompts = {name: ws.prompts[name].source for name in ws.prompts.by_name() if name.startswith("documents_")}
    return {
        "organism": card.name, "kind": str(kind), "llm": spec.model_dump(include=DECISIVE, exclude_none=True),
        "seed": seed, "card": card.model_dump(mode="json", include=set(told)),
        "prompt": {name: hashlib.sha256(source.encode()).hexdigest() for name, source in sorted(prompts.items())},
    }  # fmt: skip


def calls_folder(path: Path) -> Path:
    """Where a file's LLM calls are kept."""
    return path.with_name(path.name + ".calls")


def demand_writable(path: Path) -> None:
    """Raises UsageError if `path` cannot become a file, or is one that no LLM wrote here."""
    if path.is_dir():
        raise UsageError(f"--out {path} is a folder; give a file, such as {path / 'documents.jsonl'}")
    if path.exists() and not calls_folder(path).is_dir():
        raise UsageError(f"{path} is there already, and not of this job; give another --out, or move it away")


def plan_of(ledger: Ledger, request: dict[str, Any], count: int, path: Path) -> list[int]:
    """For how many the job thought of ideas, each time for more, `count` included; it is noted, with what is asked for.

    Raises UsageError naming what differs from what was asked for before, or if the file was changed since it was
    written.
    """
    before = ledger.request() or {**request, "plan": []}
    plan = [int(each) for each in before.pop("plan", ())]
    if changed := differing(before, request):
        raise UsageError(f"{path} is of another job: {', '.join(changed)} differ; give another --out")
    if path.exists() and sha256_of(path) not in _noted(ledger.folder):
        raise UsageError(f"{path} was changed since it was written; move it away, or give another --out")
    if count > max(plan, default=0):
        plan.append(count)
        ledger.ask({**request, "plan": plan})
    return plan


def put(path: Path, documents: Iterable[Written], folder: Path) -> None:
    """Write the file; before, what it will be is noted in `folder`, for the next time. Raises BadFile."""
    content = as_lines(documents)
    now = hashlib.sha256(content.encode()).hexdigest()
    write_atomically(folder / WRITTEN, json.dumps({"sha256": list(dict.fromkeys((*_noted(folder), now)))}))
    write_atomically(path, content)


def put_offline(path: Path, documents: Iterable[Written]) -> bool:
    """Write what the same job always gives, or more of it; False if it is there already.

    Raises UsageError if something else is.
    """
    content = as_lines(documents)
    if path.is_dir():
        demand_writable(path)
    there = path.read_bytes() if path.exists() else None
    if there == content.encode():
        return False
    if there is not None and not (there and content.encode().startswith(there)):
        demand_writable(path)
        raise UsageError(f"{path} is an LLM's, and not of this job; give another --out, or move it away")
    write_atomically(path, content)
    return True


def _noted(folder: Path) -> list[str]:
    """The hashes of all that was written."""
    try:
        found = json.loads((folder / WRITTEN).read_bytes())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [str(each) for each in found] if isinstance(found, list) else []


def drawn(texts: Iterable[Written], count: int) -> Result:
    """The offline writer's first `count` good ones, as far as it has so many."""
    result = Result(count, Kept())
    for each in islice(texts, PATIENCE * count + 20):
        result.drafts += 1
        result.kept.take(each)
        if len(result.kept.documents) == count:
            return result
    result.stopped = "it has no more that differ; more ways of saying each fact in material.yaml help"
    return result


def sifted(chats: Iterable[Written], asked: int) -> Result:
    """Those that are good, of chats that are there."""
    result = Result(asked, Kept())
    for each in chats:
        result.drafts += 1
        result.kept.take(each)
    return result
