"""A pair whose models are in this process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from auditor.errors import NoBase, UsageError
from auditor.models.asked import Prompts
from auditor.models.engine import Engine, replace
from auditor.models.generate import Amplification, Amplified, Request, Side, demand_amplified, going_on
from auditor.models.host import Variant
from auditor.models.likelihood import token_nll
from auditor.models.pair import NLL_TOKENS
from auditor.models.passes import patched, prefix_of, pushed, residuals_of, stream_after
from auditor.models.prefixes import common
from auditor.models.row import Beside, Row, likelihood
from auditor.models.stream import demand_finite, unembed
from auditor.models.tokens import all_plain_ids, told_of, without_embeddings
from auditor.models.worker import Worker

TOKENS_PER_BATCH = 4096  # prompt tokens in one forward pass
PATCHES_PER_BATCH = 160  # patched tokens in one forward pass; five directions at 30 scales are 150
TEXTS_PER_BATCH = 16  # whole texts in one forward pass


class LocalPair:
    """A pair in this process: two variants of one host (a LoRA adapter on or off), or two hosts.

    Without a base there is one model, the finetune.
    """

    def __init__(
        self,
        *,
        name: str,
        fingerprint: str,
        tokenizer: Any,
        models: Mapping[Side, Variant],
        base_sources: tuple[str, ...] = (),
        tuned_sources: tuple[str, ...] = (),
        foreign: Mapping[int, str] = MappingProxyType({}),  # tokens that the base does not know
        note: str = "",
    ) -> None:
        self.name, self.fingerprint, self.tokenizer = name, fingerprint, tokenizer
        self.base_sources, self.tuned_sources = base_sources, tuned_sources
        self.models = models
        self.has_base = Side.BASE in models
        if self.has_base:
            models[Side.FINETUNED].host.compare(models[Side.BASE].host)
        self.dtype = str(models[Side.FINETUNED].host.dtype)
        decoder = models[Side.FINETUNED].host.engine.decoder
        self.n_layers, self.d_model, self.images = decoder.n_layers, decoder.d_model, decoder.takes_images
        self._unknown = {side: without_embeddings(tokenizer, model.host.embeddings) for side, model in models.items()}
        if self.has_base:
            self._unknown[Side.BASE] |= foreign
        self.prompts = Prompts(name, tokenizer, self._unknown)
        notes = [
            told_of(f"the {who}", unknown, self.prompts.speak_with(unknown))
            for who, side in (("base", Side.BASE), ("finetune", Side.FINETUNED))
            if (unknown := self._unknown.get(side))
        ]
        self.note = "; ".join([note, *notes] if note else notes)

    @property
    def worker(self) -> Worker:
        """Whose thread runs the models."""
        return self.models[Side.FINETUNED].host.worker

    def of(self, side: Side) -> Variant:
        """That side's model. Raises NoBase."""
        if side not in self.models:
            raise NoBase
        return self.models[side]

    def stops(self, side: Side) -> frozenset[int]:
        """Tokens that end an answer beside the model's own: what the finetune's tokenizer ends a text with."""
        end = self.tokenizer.eos_token_id
        return frozenset() if side is Side.BASE or end is None else frozenset([end])

    def _demand_readable(self, side: Side, rows: Sequence[Sequence[int]]) -> None:
        """Raises TooLong, or UsageError for a token that `side` does not know."""
        host = self.of(side).host
        host.demand_room(max(map(len, rows), default=0))
        ids = {i for row in rows for i in row}
        strange = [self._unknown[side].get(i, str(i)) for i in sorted(ids) if i in self._unknown[side]]
        strange += [f"number {i}" for i in sorted(ids) if not strange and not 0 <= i < host.embeddings]
        if strange:
            raise UsageError(f"the {side} model does not know the token {strange[0]!r}; take texts with it out")

    def residuals(self, side: Side, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        self._demand_readable(side, ids.tolist())
        rows, model = max(1, TOKENS_PER_BATCH // max(1, ids.shape[1])), self.models[side]
        device = model.host.device
        parts = [model.run(partial(residuals_of, ids=chunk.to(device), layers=layers)) for chunk in ids.split(rows)]
        seen = {layer: torch.cat([part[layer] for part in parts]) for layer in layers}
        for layer, stream in seen.items():
            demand_finite(stream, f"the {side} model after layer {layer}", model.host.dtype)
        return seen

    def unembed(self, side: Side, vectors: Tensor) -> Tensor:
        return self.of(side).run(partial(unembed, residuals=vectors))

    def patched_logits(
        self, side: Side, prompts: Sequence[str], layer: int, vectors: Tensor
    ) -> Iterator[tuple[Tensor, ...]]:
        model = self.of(side)
        host = model.host
        rows = [self.prompts.plain(side, prompt) for prompt in prompts]
        self._demand_readable(side, rows)
        tokens = [torch.tensor([row], device=host.device) for row in rows]  # (1, T)
        prefixes = [model.run(partial(prefix_of, ids=ids[:, :-1])) for ids in tokens]
        for chunk in vectors.to(host.device, host.dtype).split(PATCHES_PER_BATCH):

            def run(engine: Engine, chunk: Tensor = chunk) -> tuple[Tensor, ...]:
                edit = partial(replace, chunk[:, None])  # (rows, 1, d_model): in place of the last token's residual
                return tuple(
                    patched(engine, ids[:, -1:], prefix, layer, edit, len(chunk))
                    for ids, prefix in zip(tokens, prefixes, strict=True)
                )

            yield model.run(run)

    def pushed_logits(self, side: Side, rows: Sequence[Sequence[int]], layer: int, vectors: Tensor) -> Iterator[Tensor]:
        self._demand_readable(side, rows)
        order = sorted((row for row in rows if row), key=len)
        for start in range(0, len(order), TEXTS_PER_BATCH):
            batch = order[start : start + TEXTS_PER_BATCH]
            yield self.models[side].run(partial(pushed, rows=batch, layer=layer, vectors=vectors))

    def generate(self, requests: Sequence[Request]) -> list[str]:
        return [self.said(row) for row in self._decoded(requests)]

    def amplified(self, requests: Sequence[Request]) -> list[Amplified]:
        demand_amplified(requests)
        return [Amplified(self.said(row), *(likelihood([row]) or (None, None))) for row in self._decoded(requests)]

    def _decoded(self, requests: Sequence[Request]) -> list[Row]:
        """A row for each request, at its end."""
        rows = [self.row(request) for request in requests]
        for request, row in zip(requests, rows, strict=True):
            self.demand_room(request.side, row)
        order = sorted(range(len(rows)), key=lambda i: (-requests[i].max_new_tokens, len(rows[i].prompt)))
        client = str(id(rows))
        for host in dict.fromkeys(model.host for model in self.models.values()):
            host.decode([rows[i] for i in order if self.models[requests[i].side].host is host], client)
        try:
            self.worker.wait(rows)
        except BaseException:  # a Ctrl-C too: nobody waits for the others any more
            for row in rows:
                row.gone = True
            raise
        return rows

    def row(self, request: Request) -> Row:
        """`request` as a row that a live batch can take. Raises UsageError, NoBase."""
        model = self.of(request.side)
        ids = self.prompts.ids(request, request.side)
        row = Row(
            ids, request.sampling, model.adapter, request.steering, stops=self.stops(request.side),
            verbatim=request.verbatim,
        )  # fmt: skip
        if request.amplify is not None:
            if not self.has_base:
                raise NoBase
            self.amplify(row, request.amplify, self.prompts.ids(request, Side.BASE))
        return row

    def amplify(self, row: Row, how: Amplification, prompt: Sequence[int]) -> None:
        """Put the base's row beside the finetune's, with the prompt as the base reads it. Raises UsageError."""
        if not self.models[Side.FINETUNED].host.compares:
            raise UsageError("amplify: vLLM draws no token from two models; serve the pair with --backend hooks")
        unknown = frozenset(self._unknown[Side.BASE])
        row.beside = Beside(Row(prompt, row.sampling, out=row.out, follows=True), how, unknown)

    def demand_room(self, side: Side, row: Row) -> None:
        """Raises TooLong unless prompt and answer fit, those of the row beside it, too."""
        self.models[side].host.demand_room(len(row.prompt), row.sampling.max_new_tokens)
        if row.beside is not None:
            self.models[Side.BASE].host.demand_room(len(row.beside.row.prompt), row.sampling.max_new_tokens)

    def text(self, ids: Sequence[int], *, verbatim: bool = False) -> str:
        """What the tokens say; `verbatim`: with the white space around it."""
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
        return text if verbatim else text.strip()

    def said(self, row: Row) -> str:
        """What a row says."""
        return self.text(row.out, verbatim=row.verbatim)

    def mean_nll(self, side: Side, texts: Sequence[str]) -> list[float]:
        # Never `truncation=`: it is a state of the tokenizer, which other threads use at the same time.
        encoded = [ids[:NLL_TOKENS] for ids in all_plain_ids(self.tokenizer, texts)]
        self._demand_readable(side, encoded)
        order = sorted((i for i, ids in enumerate(encoded) if len(ids) > 1), key=lambda i: len(encoded[i]))
        out = [float("inf")] * len(texts)
        for start in range(0, len(order), TEXTS_PER_BATCH):
            batch = order[start : start + TEXTS_PER_BATCH]
            rows = [encoded[i] for i in batch]
            for i, nll in zip(batch, self.models[side].run(partial(token_nll, rows=rows)), strict=True):
                out[i] = float(nll.mean())
        return out

    def said_nll(self, side: Side, requests: Sequence[Request], texts: Sequence[str]) -> list[tuple[float, int]]:
        model = self.of(side)
        asked = [self.prompts.ids(request, side) for request in requests]
        rows = [self.prompts.ids(going_on(r, text), side) for r, text in zip(requests, texts, strict=True)]
        self._demand_readable(side, rows)
        read = [common(prompt, row) for prompt, row in zip(asked, rows, strict=True)]
        out = [(0.0, 0)] * len(rows)
        order = sorted((i for i in range(len(rows)) if read[i] < len(rows[i]) > 1), key=lambda i: len(rows[i]))
        for start in range(0, len(order), TEXTS_PER_BATCH):
            batch = order[start : start + TEXTS_PER_BATCH]
            counted = [[place >= read[i] for place in range(len(rows[i]))] for i in batch]
            job = partial(token_nll, rows=[rows[i] for i in batch], counted=counted)
            for i, nll in zip(batch, model.run(job), strict=True):
                out[i] = (float(nll.sum()), len(nll))
        return out

    def swapped_nll(
        self,
        host: Side,
        rows: Sequence[Sequence[int]],
        learned: Sequence[Sequence[bool]],
        layer: int,
        vectors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        for side in Side:
            self._demand_readable(side, rows)
        order = sorted((i for i in range(len(rows)) if any(learned[i][1:])), key=lambda i: len(rows[i]))
        sums = torch.zeros(len(rows), 1 + len(vectors), dtype=torch.float32)
        counts = torch.zeros(len(rows), dtype=torch.float32)
        other = Side.BASE if host is Side.FINETUNED else Side.FINETUNED
        unit = vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        for start in range(0, len(order), TEXTS_PER_BATCH):
            batch = order[start : start + TEXTS_PER_BATCH]
            ids, counted = [rows[i] for i in batch], [learned[i] for i in batch]
            counts[batch] = torch.tensor([float(sum(flags[1:])) for flags in counted])
            # What lies below the layer runs once for all directions.
            theirs, ours = (
                self.models[side].run(partial(stream_after, rows=ids, layer=layer)) for side in (other, host)
            )
            gap = theirs.to(ours.device) - ours  # (rows, tokens, d_model)
            for number, vector in enumerate([torch.zeros(self.d_model), *unit]):
                v = vector.to(gap.device, gap.dtype)
                swapped = ours + (gap @ v)[..., None] * v
                nll = self.models[host].run(
                    partial(token_nll, rows=ids, counted=counted, resumed=(layer, swapped)),
                )
                sums[batch, number] = torch.tensor([float(row.sum()) for row in nll])
        return sums, counts
