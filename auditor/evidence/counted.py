"""A pair that counts the tokens that its models read and write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from torch import Tensor

from auditor.models.asked import Prompts
from auditor.models.generate import Amplified, Request, Side, going_on
from auditor.models.pair import NLL_TOKENS, ModelPair
from auditor.models.tokens import all_plain_ids


class Counted:
    """`pair` itself, with `tokens` of each side: read in forward passes, of all blocks or some, or written.

    Padding does not count; a beginning that is read once for several texts counts in each. What was written is counted
    as its tokenizer would write it.
    """

    def __init__(self, pair: ModelPair) -> None:
        from auditor.models.local import LocalPair  # slow to import, as all that loads models

        self.pair, self.tokens = pair, Counter[Side]()
        self.name, self.fingerprint = pair.name, pair.fingerprint
        self.base_sources, self.tuned_sources = pair.base_sources, pair.tuned_sources
        self.has_base, self.dtype, self.note, self.tokenizer = pair.has_base, pair.dtype, pair.note, pair.tokenizer
        self.n_layers, self.d_model, self.images = pair.n_layers, pair.d_model, pair.images
        known = pair.prompts if isinstance(pair, LocalPair) else None
        self._prompts = known or Prompts(pair.name, pair.tokenizer, {side: {} for side in Side})

    def residuals(self, side: Side, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        self.tokens[side] += ids.numel()
        return self.pair.residuals(side, ids, layers)

    def unembed(self, side: Side, vectors: Tensor) -> Tensor:
        return self.pair.unembed(side, vectors)

    def patched_logits(
        self, side: Side, prompts: Sequence[str], layer: int, vectors: Tensor
    ) -> Iterator[tuple[Tensor, ...]]:
        before = sum(len(self._prompts.plain(side, prompt)) - 1 for prompt in prompts) if self.tokenizer else 0
        self.tokens[side] += before + len(prompts) * len(vectors)
        return self.pair.patched_logits(side, prompts, layer, vectors)

    def pushed_logits(self, side: Side, rows: Sequence[Sequence[int]], layer: int, vectors: Tensor) -> Iterator[Tensor]:
        self.tokens[side] += (1 + len(vectors)) * sum(map(len, rows))
        return self.pair.pushed_logits(side, rows, layer, vectors)

    def swapped_nll(
        self,
        host: Side,
        rows: Sequence[Sequence[int]],
        learned: Sequence[Sequence[bool]],
        layer: int,
        vectors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        read = sum(len(row) for row, flags in zip(rows, learned, strict=True) if any(flags[1:]))
        for side in Side:
            self.tokens[side] += read * (2 + len(vectors) if side is host else 1)
        return self.pair.swapped_nll(host, rows, learned, layer, vectors)

    def generate(self, requests: Sequence[Request]) -> list[str]:
        texts = self.pair.generate(requests)
        for request, text in zip(requests, texts, strict=True):
            for side in (request.side,) if request.amplify is None else Side:
                self.tokens[side] += self._asked(request, side) + self._length(text)
        return texts

    def amplified(self, requests: Sequence[Request]) -> list[Amplified]:
        found = self.pair.amplified(requests)
        for request, said in zip(requests, found, strict=True):
            for side in Side:
                self.tokens[side] += self._asked(request, side) + self._length(said.text)
        return found

    def mean_nll(self, side: Side, texts: Sequence[str]) -> list[float]:
        lengths = map(len, all_plain_ids(self.tokenizer, texts)) if self.tokenizer else map(self._length, texts)
        self.tokens[side] += sum(min(length, NLL_TOKENS) for length in lengths if length > 1)
        return self.pair.mean_nll(side, texts)

    def said_nll(self, side: Side, requests: Sequence[Request], texts: Sequence[str]) -> list[tuple[float, int]]:
        found = self.pair.said_nll(side, requests, texts)
        said = zip(requests, texts, found, strict=True)
        self.tokens[side] += sum(
            self._asked(going_on(request, text), side) for request, text, (_, count) in said if count
        )
        return found

    def _asked(self, request: Request, side: Side) -> int:
        return len(self._prompts.ids(request, side)) if self.tokenizer else self._length(request.prompt)

    def _length(self, text: str) -> int:
        return len(self.tokenizer(text, add_special_tokens=False).input_ids) if self.tokenizer else len(text.split())
