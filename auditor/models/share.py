"""Lets audits that run at the same time share their batches."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future

from torch import Tensor

from auditor.models.generate import Request, Side
from auditor.models.pair import ModelPair

PATIENCE = 2.0  # seconds that the first request waits for the other audits'


class SharedPair:
    """A pair for `workers` threads: whoever finds nobody decoding decodes for all who wait.

    Decoding is bound by reading the weights once a step, so that six audits together take little longer than
    one; the texts are the same either way.
    """

    def __init__(self, pair: ModelPair, workers: int) -> None:
        self._pair = pair
        self.name, self.fingerprint, self.tokenizer = pair.name, pair.fingerprint, pair.tokenizer
        self.n_layers, self.d_model = pair.n_layers, pair.d_model
        self._workers = workers
        self._waiting: list[tuple[Sequence[Request], Future[list[str]]]] = []
        self._changed = threading.Condition()
        self._decoding = threading.Lock()

    def leave(self) -> None:
        """A worker has finished its last audit: nobody waits for it any more."""
        with self._changed:
            self._workers -= 1
            self._changed.notify_all()

    def generate(self, requests: Sequence[Request]) -> list[str]:
        mine: Future[list[str]] = Future()
        with self._changed:
            self._waiting.append((requests, mine))
            self._changed.notify_all()
        with self._decoding:
            if not mine.done():
                self._decode_waiting()
        return mine.result()

    def _decode_waiting(self) -> None:
        deadline = time.monotonic() + PATIENCE
        with self._changed:
            while len(self._waiting) < self._workers and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            batch, self._waiting = self._waiting, []
        try:
            texts = iter(self._pair.generate([request for requests, _ in batch for request in requests]))
        except BaseException as error:
            for _, future in batch:
                future.set_exception(error)
            return
        for requests, future in batch:
            future.set_result([next(texts) for _ in requests])

    def residuals(self, side: Side, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        return self._pair.residuals(side, ids, layers)

    def unembed(self, side: Side, vectors: Tensor) -> Tensor:
        return self._pair.unembed(side, vectors)

    def patched_logits(
        self, side: Side, prompts: Sequence[str], layer: int, vectors: Tensor
    ) -> Iterator[tuple[Tensor, ...]]:
        return self._pair.patched_logits(side, prompts, layer, vectors)

    def mean_nll(self, side: Side, texts: Sequence[str]) -> list[float]:
        return self._pair.mean_nll(side, texts)

    def swapped_nll(
        self,
        host: Side,
        rows: Sequence[Sequence[int]],
        learned: Sequence[Sequence[bool]],
        layer: int,
        vectors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return self._pair.swapped_nll(host, rows, learned, layer, vectors)
