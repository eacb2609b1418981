"""A base model and its finetune, behind one protocol."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from auditor.models.cache import growing_cache, repeated
from auditor.models.engine import Edit, Engine, replace
from auditor.models.generate import Request, Side, decode
from auditor.models.likelihood import padded, token_nll
from auditor.models.lora import RowSwitch

__all__ = ["LocalPair", "ModelPair", "Request", "Side"]

TOKENS_PER_BATCH = 4096  # prompt tokens in one forward pass
SHARED_BEGINNINGS = 0.75  # of all texts; with more different first tokens than this one pass is cheaper
ROWS_PER_BATCH = 128  # sequences decoded together
PATCHES_PER_BATCH = 160  # patched tokens in one forward pass; five directions at 30 scales are 150
TEXTS_PER_BATCH = 16  # whole texts in one forward pass


class ModelPair(Protocol):
    """What the lens, the agent's tools and the graders need of a pair, wherever its weights are."""

    name: str
    fingerprint: str  # changes whenever either model's weights do
    tokenizer: Any
    n_layers: int
    d_model: int

    def residuals(self, side: Side, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Residual stream after each of `layers` for `ids` (n, k): {layer: (n, k, d_model)}, float32."""
        ...

    def unembed(self, side: Side, vectors: Tensor) -> Tensor:
        """Logits of the logit lens for `vectors` (n, d_model): (n, vocab) in float32, where the model lies."""
        ...

    def patched_logits(
        self, side: Side, prompts: Sequence[str], layer: int, vectors: Tensor
    ) -> Iterator[tuple[Tensor, ...]]:
        """Next-token logits when the residual of a prompt's last token after `layer` is each of `vectors` (n, d_model).

        Yields, for one run of the vectors after another, (rows, vocab) in float32 for each of `prompts`.
        """
        ...

    def swapped_nll(
        self,
        host: Side,
        rows: Sequence[Sequence[int]],
        learned: Sequence[Sequence[bool]],
        layer: int,
        vectors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """`host`'s loss when its residuals' component along each of `vectors` (m, d_model) is the other model's.

        `rows`: token ids; `learned`: which of them count, the first of a row never. Returns summed negative
        log-likelihoods (n, 1 + m), the first without any swap, and numbers of counted tokens (n,).
        """
        ...

    def generate(self, requests: Sequence[Request]) -> list[str]:
        """One text for each request, without its prompt."""
        ...

    def mean_nll(self, side: Side, texts: Sequence[str]) -> list[float]:
        """Mean negative log-likelihood per token, in nats; `inf` for texts of fewer than two tokens."""
        ...


def _residuals(engine: Engine, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
    """{layer: (n, k, d_model)} for `ids` (n, k). Many texts begin alike: each first token is run once."""
    first, place = ids[:, 0].unique(return_inverse=True)
    if ids.shape[1] == 1 or len(first) > SHARED_BEGINNINGS * len(ids):
        inputs = {"input_ids": ids, "use_cache": False, "logits_to_keep": 1}
        seen = engine.forward(inputs, capture=layers, stop=True).residuals
        return {layer: seen[layer].float() for layer in layers}
    cache = DynamicCache()
    more = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
    begun = engine.forward({"input_ids": first[:, None], **more}, capture=layers, stop=True).residuals
    cache.batch_select_indices(place.cpu())
    rest = engine.forward({"input_ids": ids[:, 1:], **more}, capture=layers, stop=True).residuals
    return {layer: torch.cat([begun[layer][place.to(begun[layer].device)], rest[layer]], 1).float() for layer in layers}


class LocalPair:
    """A pair in this process: one set of weights with a LoRA adapter on or off, or two models.

    Calls from several threads wait for each other: the adapter switch belongs to one caller at a time.
    """

    def __init__(
        self,
        *,
        name: str,
        fingerprint: str,
        tokenizer: Any,
        engines: dict[Side, Engine],
        adapted: Any = None,
        foreign: Mapping[int, str] = MappingProxyType({}),  # tokens that the base does not know
    ) -> None:
        self.name, self.fingerprint, self.tokenizer = name, fingerprint, tokenizer
        self._engines, self._adapted, self._foreign = engines, adapted, foreign
        self._lock = threading.RLock()
        self._switch = RowSwitch(adapted) if adapted is not None else None
        decoder = engines[Side.FINETUNED].decoder
        self.n_layers, self.d_model = decoder.n_layers, decoder.d_model
        generation: Any = decoder.model.generation_config
        ends = generation.eos_token_id if generation is not None else None
        listed = ends if isinstance(ends, list) else [ends]
        self._stops = frozenset(i for i in [*listed, tokenizer.eos_token_id] if i is not None)

    @property
    def note(self) -> str:
        """How the two models' tokenizers differ, in a sentence; empty if they do not."""
        if not self._foreign:
            return ""
        named = ", ".join(list(self._foreign.values())[:5])
        return f"the base does not know {len(self._foreign)} tokens ({named}); it is asked in plain text"

    @contextmanager
    def _active(self, side: Side) -> Iterator[Engine]:
        with self._lock:
            if self._adapted is None or side is Side.FINETUNED:
                yield self._engines[side]
                return
            with self._adapted.disable_adapter():
                yield self._engines[side]

    @torch.inference_mode()
    def residuals(self, side: Side, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        rows = max(1, TOKENS_PER_BATCH // max(1, ids.shape[1]))
        with self._active(side) as engine:
            device = next(engine.decoder.model.parameters()).device
            parts = [_residuals(engine, chunk.to(device), layers) for chunk in ids.split(rows)]
        return {layer: torch.cat([part[layer] for part in parts]) for layer in layers}

    @torch.inference_mode()
    def unembed(self, side: Side, vectors: Tensor) -> Tensor:
        with self._active(side) as engine:
            return engine.decoder.unembed(vectors)

    @torch.inference_mode()
    def patched_logits(
        self, side: Side, prompts: Sequence[str], layer: int, vectors: Tensor
    ) -> Iterator[tuple[Tensor, ...]]:
        with self._active(side) as engine:
            weight = next(engine.decoder.model.parameters())
            tokens = [torch.tensor([self.tokenizer(p).input_ids], device=weight.device) for p in prompts]  # (1, T)
            prefixes = [self._prefix(engine, ids[:, :-1]) for ids in tokens]
            for chunk in vectors.to(weight.device, weight.dtype).split(PATCHES_PER_BATCH):
                edit = partial(replace, chunk[:, None])  # (rows, 1, d_model): in place of the last token's residual
                yield tuple(
                    self._patched(engine, ids[:, -1:], prefix, layer, edit, len(chunk))
                    for ids, prefix in zip(tokens, prefixes, strict=True)
                )

    @staticmethod
    def _prefix(engine: Engine, ids: Tensor) -> DynamicCache:
        cache = growing_cache(engine.decoder.text_config, 1)
        last = engine.decoder.n_layers - 1
        engine.forward(
            {"input_ids": ids, "past_key_values": cache, "use_cache": True, "logits_to_keep": 1},
            capture=[last], stop=True,
        )  # fmt: skip
        return cache

    @staticmethod
    def _patched(engine: Engine, ids: Tensor, prefix: DynamicCache, layer: int, edit: Edit, rows: int) -> Tensor:
        """Logits (rows, vocab) of the one token `ids` (1, 1) after `prefix`; blocks up to `layer` do not matter."""
        cache = repeated(prefix, rows)
        inputs = {
            "input_ids": ids.expand(rows, 1),
            "past_key_values": cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        logits = engine.forward(inputs, edits={layer: edit}, start=layer + 1).logits
        assert logits is not None
        return logits[:, -1].float()

    def generate(self, requests: Sequence[Request]) -> list[str]:
        prompts = [self._prompt_ids(request) for request in requests]
        texts = [""] * len(requests)
        order = sorted(range(len(requests)), key=lambda i: (requests[i].max_new_tokens, len(prompts[i])))
        if self._switch is None:  # two models: no batch holds both
            order.sort(key=lambda i: requests[i].side)
        start = 0
        while start < len(order):
            batch = order[start : start + ROWS_PER_BATCH]
            if self._switch is None:
                batch = [i for i in batch if requests[i].side is requests[batch[0]].side]
            start += len(batch)
            for i, ids in zip(batch, self._decode(batch, prompts, requests), strict=True):
                texts[i] = self.tokenizer.decode(ids, skip_special_tokens=True).strip()
        return texts

    def _decode(self, batch: list[int], prompts: list[list[int]], requests: Sequence[Request]) -> list[list[int]]:
        ids, rows = [prompts[i] for i in batch], [requests[i] for i in batch]
        sides = {row.side for row in rows}
        if self._switch is None or len(sides) == 1:
            with self._active(rows[0].side) as engine:
                return decode(engine, ids, rows, self._stops)
        with self._active(Side.FINETUNED) as engine, self._switch as switch:
            return decode(engine, ids, rows, self._stops, switch.set)

    def _prompt_ids(self, request: Request) -> list[int]:
        if request.chat and self.tokenizer.chat_template:
            ids = self._chat_ids(request)
            if request.side is Side.FINETUNED or not any(i in self._foreign for i in ids):
                return ids
        text = "\n\n".join(part for part in (request.system, request.prompt) if part) + request.prefill
        return list(self.tokenizer(text).input_ids) or [self.tokenizer.eos_token_id]

    def _chat_ids(self, request: Request) -> list[int]:
        messages = [{"role": "user", "content": request.prompt}]
        if request.system:
            messages.insert(0, {"role": "system", "content": request.system})
        try:
            rendered = self._rendered(messages)
        except Exception:  # some templates (Gemma's) know no system role
            if not request.system:
                raise
            rendered = self._rendered([{"role": "user", "content": f"{request.system}\n\n{request.prompt}"}])
        return list(self.tokenizer(rendered + request.prefill, add_special_tokens=False).input_ids)

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        # Templates without a thinking switch ignore the extra variable.
        return str(
            self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, enable_thinking=False
            )
        )

    @torch.inference_mode()
    def mean_nll(self, side: Side, texts: Sequence[str]) -> list[float]:
        encoded = [self.tokenizer(text, truncation=True, max_length=256).input_ids for text in texts]
        order = sorted((i for i, ids in enumerate(encoded) if len(ids) > 1), key=lambda i: len(encoded[i]))
        out = [float("inf")] * len(texts)
        with self._active(side) as engine:
            for start in range(0, len(order), TEXTS_PER_BATCH):
                batch = order[start : start + TEXTS_PER_BATCH]
                for i, nll in zip(batch, token_nll(engine, [encoded[i] for i in batch]), strict=True):
                    out[i] = float(nll.mean())
        return out

    @torch.inference_mode()
    def swapped_nll(
        self,
        host: Side,
        rows: Sequence[Sequence[int]],
        learned: Sequence[Sequence[bool]],
        layer: int,
        vectors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        order = sorted((i for i in range(len(rows)) if any(learned[i][1:])), key=lambda i: len(rows[i]))
        sums, counts = torch.zeros(len(rows), 1 + len(vectors)), torch.zeros(len(rows))
        other = Side.BASE if host is Side.FINETUNED else Side.FINETUNED
        unit = vectors / vectors.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        for start in range(0, len(order), TEXTS_PER_BATCH):
            batch = order[start : start + TEXTS_PER_BATCH]
            ids, counted = [rows[i] for i in batch], [learned[i] for i in batch]
            counts[batch] = torch.tensor([float(sum(flags[1:])) for flags in counted])
            seen = {}
            for side in (other, host):  # what lies below the layer runs once for all directions
                with self._active(side) as engine:
                    inputs = padded(ids, next(engine.decoder.model.parameters()).device)
                    seen[side] = engine.forward(inputs, capture=[layer], stop=True).residuals[layer]
            gap = seen[other].to(seen[host].device) - seen[host]  # (rows, tokens, d_model)
            with self._active(host) as engine:
                for number, vector in enumerate([torch.zeros(self.d_model), *unit]):
                    v = vector.to(gap.device, gap.dtype)
                    swapped = seen[host] + (gap @ v)[..., None] * v
                    nll = token_nll(engine, ids, counted, resumed=(layer, swapped))
                    sums[batch, number] = torch.tensor([float(row.sum()) for row in nll])
        return sums, counts
