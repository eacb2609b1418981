"""A pair for those who must not know which it is: the lens' graders, and the agent's tools."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import Tensor

from auditor import telemetry
from auditor.models.generate import Amplified, Request, Side
from auditor.models.kept import Kept
from auditor.models.pair import ModelPair

T = TypeVar("T")

NEUTRAL = "audited"

# Beside the objects, not in them: whatever a plugin serializes of its pair has no way to what is behind it.
_behind: WeakKeyDictionary[BlindPair, tuple[ModelPair, Kept]] = WeakKeyDictionary()


class BlindPair:
    """What a pair can do, and nothing of what it, its files or its server's routes are called.

    `kept`: where its answers are kept, if it is an audit's.
    """

    name, fingerprint, note = NEUTRAL, "", ""
    base_sources: tuple[str, ...] = ()
    tuned_sources: tuple[str, ...] = ()

    def __init__(self, pair: ModelPair, kept: Kept | None = None) -> None:
        _behind[self] = pair, kept or Kept()
        self.has_base, self.dtype = pair.has_base, pair.dtype
        self.n_layers, self.d_model, self.images = pair.n_layers, pair.d_model, pair.images
        self.tokenizer = _nameless(pair.tokenizer)

    def residuals(self, side: Side, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        return self._asked("residuals", lambda pair: pair.residuals(side, ids, layers))

    def unembed(self, side: Side, vectors: Tensor) -> Tensor:
        return self._asked("unembed", lambda pair: pair.unembed(side, vectors))

    def patched_logits(
        self, side: Side, prompts: Sequence[str], layer: int, vectors: Tensor
    ) -> Iterator[tuple[Tensor, ...]]:
        runs = self._asked("patched_logits", lambda pair: pair.patched_logits(side, prompts, layer, vectors))
        while (run := self._asked("patched_logits", lambda _pair: next(runs, None))) is not None:
            yield run

    def pushed_logits(self, side: Side, rows: Sequence[Sequence[int]], layer: int, vectors: Tensor) -> Iterator[Tensor]:
        runs = self._asked("pushed_logits", lambda pair: pair.pushed_logits(side, rows, layer, vectors))
        while (run := self._asked("pushed_logits", lambda _pair: next(runs, None))) is not None:
            yield run

    def swapped_nll(
        self,
        host: Side,
        rows: Sequence[Sequence[int]],
        learned: Sequence[Sequence[bool]],
        layer: int,
        vectors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return self._asked("swapped_nll", lambda pair: pair.swapped_nll(host, rows, learned, layer, vectors))

    def generate(self, requests: Sequence[Request]) -> list[str]:
        return self._asked("generate", lambda pair: _behind[self][1].generate(pair, requests), requests)

    def amplified(self, requests: Sequence[Request]) -> list[Amplified]:
        return self._asked("amplified", lambda pair: _behind[self][1].amplified(pair, requests), requests)

    def mean_nll(self, side: Side, texts: Sequence[str]) -> list[float]:
        return self._asked("mean_nll", lambda pair: pair.mean_nll(side, texts))

    def said_nll(self, side: Side, requests: Sequence[Request], texts: Sequence[str]) -> list[tuple[float, int]]:
        return self._asked("said_nll", lambda pair: pair.said_nll(side, requests, texts))

    def _asked(self, what: str, ask: Callable[[ModelPair], T], requests: Sequence[Request] = ()) -> T:
        """What the pair behind answers; an error that names it does so no longer."""
        pair, _ = _behind[self]
        try:
            with telemetry.model_call(what, pair.name, requests) as span:
                found = ask(pair)
                if requests:
                    telemetry.texts(span, found)
                return found
        except Exception as error:
            name = re.compile(rf"(?<![\w-]){re.escape(pair.name)}(?![\w-])")
            error.args = tuple(name.sub(NEUTRAL, arg) if isinstance(arg, str) else arg for arg in error.args)
            raise


def _nameless(tokenizer: Any) -> Any:
    """The same tokenizer without the folder or hub id that it was read from."""
    if tokenizer is None:
        return None
    found, source = copy.copy(tokenizer), str(tokenizer.name_or_path)
    for key, value in vars(found).items():
        if isinstance(value, dict) and any(_tells(k, v, source) for k, v in value.items()):
            setattr(found, key, {k: v for k, v in value.items() if not _tells(k, v, source)})
        elif _tells(key, value, source):
            setattr(found, key, "")
    return found


def _tells(key: Any, value: Any, source: str) -> bool:
    return isinstance(value, str) and (str(key).endswith(("_file", "_or_path")) or (bool(source) and source in value))
