"""How far a training has come, on disk: whole or not there, and of one recipe only."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from auditor.errors import UsageError
from auditor.files import flaw, replacing_folder, seal, write_atomically

EVERY = 20  # steps
SHARE = 20  # of the time between two checkpoints, one part at most goes into writing them

log = logging.getLogger("auditor.training")

Told = dict[str, Any]
"""What decides a training's result, by name: base, recipe, documents, device, …"""


@dataclass
class Checkpoints:
    """Those of one training, which would write to `target`; the next one takes the place of the last."""

    folder: Path
    target: Path
    told: Told
    _since: float = field(default_factory=time.monotonic)
    _took: float = 0.0

    @classmethod
    def of(cls, cache: Path, target: Path, told: Told) -> Checkpoints:
        key = hashlib.sha256(str(target.expanduser().resolve()).encode()).hexdigest()
        return cls(cache / "training" / key[:24], target, json.loads(json.dumps(told)))

    def load(self, *, anew: bool) -> dict[str, Any] | None:
        """The last one's state; None where there is none, or, with a warning, none that is as it was written.

        Raises UsageError if it is of another recipe, unless `anew`.
        """
        if anew:
            self.clear()
        if not self.folder.is_dir():
            return None
        if reason := flaw(self.folder):
            log.warning("%s: %s; training begins anew", self.folder, reason)
            return None
        there = json.loads((self.folder / "told.json").read_text("utf-8"))
        if (differs := difference(there["told"], self.told)) is not None:
            raise UsageError(
                f"{self.target}: a training with other settings was cut off there at step {there['step']} ({differs}); "
                f"go on with those, give another --out, or drop it (--anew, or remove {self.folder})"
            )
        state: dict[str, Any] = torch.load(self.folder / "state.pt", weights_only=True)
        return state

    def due(self, step: int) -> bool:
        return step % EVERY == 0 and time.monotonic() - self._since >= SHARE * self._took

    def save(self, state: dict[str, Any]) -> None:
        start = time.monotonic()
        with replacing_folder(self.folder) as part:
            torch.save(state, part / "state.pt")
            write_atomically(part / "told.json", json.dumps({"step": state["step"], "told": self.told}))
            seal(part)
        self._since = time.monotonic()
        self._took = self._since - start

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def difference(there: Told, here: Told) -> str | None:
    """The first thing that differs, and how; None if nothing does."""
    for name in dict.fromkeys((*there, *here)):
        one, other = there.get(name), here.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            if (inner := difference(one, other)) is not None:
                return inner
        elif one != other:
            short = all(len(str(value)) <= 40 for value in (one, other))
            return f"{name} {one} there, {other} here" if short else f"other {name}"
    return None
