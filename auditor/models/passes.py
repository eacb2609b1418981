"""Forward passes that read or change the residual stream, for the methods of a pair."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor
from transformers import DynamicCache

from auditor.models.cache import growing_cache, repeated
from auditor.models.engine import Edit, Engine, replace
from auditor.models.likelihood import padded
from auditor.models.stream import demand_finite, unembed

WORTH_IT = 0.25  # tokens a text that a beginning must save; a second pass costs something too


def residuals_of(engine: Engine, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
    """{layer: (n, k, d_model)} for `ids` (n, k). Where many texts begin alike, each beginning is run once."""
    k = beginning(ids)
    if k == 0:
        inputs = {"input_ids": ids, "use_cache": False, "logits_to_keep": 1}
        seen = engine.forward(inputs, capture=layers, stop=True).residuals
        return {layer: seen[layer].float() for layer in layers}
    first, place = ids[:, :k].unique(dim=0, return_inverse=True)
    cache = DynamicCache()
    more = {"cache": cache, "use_cache": True, "logits_to_keep": 1}
    begun = engine.forward({"input_ids": first, **more}, capture=layers, stop=True).residuals
    cache.batch_select_indices(place.cpu())
    rest = engine.forward({"input_ids": ids[:, k:], **more}, capture=layers, stop=True).residuals
    return {layer: torch.cat([begun[layer][place.to(begun[layer].device)], rest[layer]], 1).float() for layer in layers}


def beginning(ids: Tensor) -> int:
    """Of how many tokens the beginnings of `ids` (n, k) are that save most if each is run once; 0 if none is worth it.

    Less than k: the last token of a text is always its own.
    """
    texts, tokens = ids.shape
    distinct = ids.unique(dim=0)  # in order: a beginning's texts are neighbours
    alike = (distinct[1:] == distinct[:-1]).long().cumprod(1).sum(1)  # tokens that neighbours share
    lengths = torch.arange(1, tokens, device=ids.device)
    saved = lengths * (texts - 1 - (alike[:, None] < lengths).sum(0))
    return int(saved.argmax()) + 1 if tokens > 1 and int(saved.max()) >= WORTH_IT * texts else 0


def stream_after(engine: Engine, rows: Sequence[Sequence[int]], layer: int) -> Tensor:
    """The residuals (rows, tokens, d_model) after `layer`, padded on the right."""
    inputs = padded(rows, next(engine.decoder.model.parameters()).device)
    return engine.forward(inputs, capture=[layer], stop=True).residuals[layer]


def prefix_of(engine: Engine, ids: Tensor) -> DynamicCache:
    """Keys and values of `ids` (1, T)."""
    cache = growing_cache(engine.decoder.text_config, 1)
    last = engine.decoder.n_layers - 1
    engine.forward(
        {"input_ids": ids, "cache": cache, "use_cache": True, "logits_to_keep": 1},
        capture=[last], stop=True,
    )  # fmt: skip
    return cache


def patched(engine: Engine, ids: Tensor, prefix: DynamicCache, layer: int, edit: Edit, rows: int) -> Tensor:
    """Logits (rows, vocab) of the one token `ids` (1, 1) after `prefix`; blocks up to `layer` do not matter.

    Raises BadModel for NaN and Inf.
    """
    cache = repeated(prefix, rows)
    inputs = {
        "input_ids": ids.expand(rows, 1),
        "cache": cache,
        "use_cache": True,
        "logits_to_keep": 1,
    }
    logits = engine.forward(inputs, edits={layer: edit}, start=layer + 1).logits
    assert logits is not None
    who = type(engine.decoder.model).__name__
    demand_finite(logits[:, -1], f"the logits of {who} when its residual after layer {layer} is replaced")
    return logits[:, -1].float()


def pushed(engine: Engine, rows: Sequence[Sequence[int]], layer: int, vectors: Tensor) -> Tensor:
    """Logits (n, m, vocab) after each row's last token with each of `vectors` (m, d_model) added after `layer`.

    The blocks up to `layer` run once for all vectors.
    """
    last = engine.decoder.n_layers - 1
    inputs = padded(rows, next(engine.decoder.model.parameters()).device)
    stream = engine.forward(inputs, capture=[layer], stop=True).residuals[layer]  # (n, tokens, d_model)
    ends = torch.tensor([len(row) - 1 for row in rows])
    found = []
    for vector in vectors.to(stream.device, stream.dtype):
        edits = {layer: partial(replace, stream + vector)}
        hidden = engine.forward(inputs, capture=[last], edits=edits, stop=True, start=layer + 1).residuals[last]
        found.append(unembed(engine, hidden[torch.arange(len(rows)), ends.to(hidden.device)]))
    return torch.stack(found, 1)
