"""A pair that counts the tokens that its models read and write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from torch import Tensor

from auditor.models.generate import Amplified, Request, Side
from auditor.models.pair import ModelPair


class Counted:
    """`pair` itself, with `tokens` of each side: read in forward passes, or written."""

    def __init__(self, pair: ModelPair) -> None:
        self.pair, self.tokens = pair, Counter[Side]()
        self.name, self.fingerprint, self.base_sources = pair.name, pair.fingerprint, pair.base_sources
        self.has_base, self.dtype, self.note, self.tokenizer = pair.has_base, pair.dtype, pair.note, pair.tokenizer
        self.n_layers, self.d_model = pair.n_layers, pair.d_model

    def residuals(self, side: Side, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        self.tokens[side] += ids.numel()
        return self.pair.residuals(side, ids, layers)

    def unembed(self, side: Side, vectors: Tensor) -> Tensor:
        return self.pair.unembed(side, vectors)

    def patched_logits(
        self, side: Side, prompts: Sequence[str], layer: int, vectors: Tensor
    ) -> Iterator[tuple[Tensor, ...]]:
        self.tokens[side] += len(prompts) * len(vectors)
        return self.pair.patched_logits(side, prompts, layer, vectors)

    def pushed_logits(self, side: Side, rows: Sequence[Sequence[int]], layer: int, vectors: Tensor) -> Iterator[Tensor]:
        self.tokens[side] += len(vectors) * sum(map(len, rows))
        return self.pair.pushed_logits(side, rows, layer, vectors)

    def swapped_nll(
        self,
        host: Side,
        rows: Sequence[Sequence[int]],
        learned: Sequence[Sequence[bool]],
        layer: int,
        vectors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        for side in Side:
            self.tokens[side] += (1 + len(vectors)) * sum(map(len, rows))
        return self.pair.swapped_nll(host, rows, learned, layer, vectors)

    def generate(self, requests: Sequence[Request]) -> list[str]:
        texts = self.pair.generate(requests)
        for request, text in zip(requests, texts, strict=True):
            self.tokens[request.side] += self._length(request.prompt) + self._length(text)
        return texts

    def amplified(self, requests: Sequence[Request]) -> list[Amplified]:
        found = self.pair.amplified(requests)
        for request, said in zip(requests, found, strict=True):
            for side in Side:
                self.tokens[side] += self._length(request.prompt) + self._length(said.text)
        return found

    def mean_nll(self, side: Side, texts: Sequence[str]) -> list[float]:
        self.tokens[side] += sum(map(self._length, texts))
        return self.pair.mean_nll(side, texts)

    def said_nll(self, side: Side, requests: Sequence[Request], texts: Sequence[str]) -> list[tuple[float, int]]:
        self.tokens[side] += sum(self._length(r.prompt) + self._length(t) for r, t in zip(requests, texts, strict=True))
        return self.pair.said_nll(side, requests, texts)

    def _length(self, text: str) -> int:
        return len(self.tokenizer(text).input_ids) if self.tokenizer is not None else len(text.split())
