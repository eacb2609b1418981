"""Batched, left-padded decoding in which a row depends only on its own prompt, steering and seed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial

import numpy as np
import torch
from torch import Tensor

from auditor.models.cache import growing_cache, select_rows
from auditor.models.engine import Engine

NUCLEUS = 1024  # tokens among which a nucleus is looked for first


class Side(StrEnum):
    """Which model of the pair."""

    BASE = "base"
    FINETUNED = "finetuned"


@dataclass(frozen=True, slots=True, eq=False)
class Steering:
    """Add `vector` (d_model,) to the residual stream after block `layer`, at every token position."""

    layer: int
    vector: Tensor


@dataclass(frozen=True, slots=True)
class Request:
    """One text to be generated. `chat`: wrap the prompt in the tokenizer's chat template, with `system` before it
    and `prefill` as the beginning of the answer.
    """

    prompt: str
    side: Side = Side.FINETUNED
    seed: int = 0
    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0
    chat: bool = True
    steering: Steering | None = None
    system: str = ""
    prefill: str = ""


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from anything printable; the same parts give the same seed on every machine."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def sample(logits: Tensor, draws: Tensor, temperature: Tensor, top_p: Tensor) -> Tensor:
    """One token per row by inverse CDF; temperature 0 is greedy.

    Args: logits (n, vocab), draws in [0, 1) (n,), temperature (n,), top_p (n,). Returns (n,) token ids.
    """
    greedy = logits.argmax(-1)
    if bool((temperature == 0).all()):
        return greedy
    scaled = logits.float() / temperature.clamp_min(1e-4)[:, None]
    probs = torch.softmax(scaled, -1)
    if bool((top_p < 1).any()):
        probs = nucleus(probs, top_p)
    cdf = probs.cumsum(-1)
    drawn = torch.searchsorted(cdf, draws[:, None] * cdf[:, -1:], right=True)[:, 0]
    return torch.where(temperature == 0, greedy, drawn.clamp_max(logits.shape[-1] - 1))


def nucleus(probs: Tensor, top_p: Tensor) -> Tensor:
    """`probs` (n, vocab) with all but each row's likeliest tokens of mass `top_p` (n,) set to 0.

    Sorting a vocabulary costs as much as a layer's forward, so a row is sorted only if its likeliest
    NUCLEUS tokens are not enough; which way a row goes depends on that row alone.
    """
    ranked, order = probs.topk(min(NUCLEUS, probs.shape[-1]), -1)
    fits = ranked.sum(-1) >= top_p
    out = probs.clone()
    for rows, values, ids in (
        ((top_p < 1) & fits, ranked, order),
        ((top_p < 1) & ~fits, probs, None),
    ):
        if not bool(rows.any()):
            continue
        chosen = values[rows]
        chosen, places = (chosen, ids[rows]) if ids is not None else chosen.sort(-1, descending=True)
        kept = chosen.masked_fill(chosen.cumsum(-1) - chosen >= top_p[rows, None], 0.0)
        out[rows] = torch.zeros_like(probs[rows]).scatter_(-1, places, kept)
    return out


def _steer_edits(rows: Sequence[Request], device: torch.device, dtype: torch.dtype) -> dict[int, Tensor]:
    """Per layer, what each row adds: (n, 1, d_model), zeros for rows that are not steered there."""
    layers = {row.steering.layer for row in rows if row.steering}
    out: dict[int, Tensor] = {}
    for layer in layers:
        width = next(r.steering.vector.shape[-1] for r in rows if r.steering and r.steering.layer == layer)
        added = torch.zeros(len(rows), 1, width, device=device, dtype=dtype)
        for i, row in enumerate(rows):
            if row.steering and row.steering.layer == layer:
                added[i, 0] = row.steering.vector.to(device, dtype)
        out[layer] = added
    return out


def _add(vector: Tensor, hidden: Tensor) -> Tensor:
    return hidden + vector.to(hidden.device)  # blocks may lie on several GPUs


@torch.inference_mode()
def decode(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    rows: Sequence[Request],
    stop_ids: frozenset[int],
    set_sides: Callable[[Sequence[Side]], None] = lambda sides: None,
) -> list[list[int]]:
    """Generate for all `rows` at once; `prompts` are their token ids. Returns the new token ids per row.

    Equal prompts with equal steering are prefilled once. Finished rows leave the batch when a quarter of it
    has finished. `set_sides` is told whose rows the next forward passes hold.
    """
    weight = next(engine.decoder.model.parameters())
    device, dtype = weight.device, weight.dtype
    n = len(rows)
    keys = [(tuple(ids), id(row.steering), row.side) for ids, row in zip(prompts, rows, strict=True)]
    first = {key: i for i, key in reversed(list(enumerate(keys)))}
    unique = sorted(set(first.values()))
    place = {keys[i]: j for j, i in enumerate(unique)}

    longest = max(len(ids) for ids in prompts)
    budget = max(row.max_new_tokens for row in rows)
    ids = torch.zeros(len(unique), longest, dtype=torch.long)
    mask = torch.zeros(len(unique), longest, dtype=torch.long)
    for j, i in enumerate(unique):
        ids[j, longest - len(prompts[i]) :] = torch.tensor(prompts[i])
        mask[j, longest - len(prompts[i]) :] = 1
    ids, mask = ids.to(device), mask.to(device)

    cache = growing_cache(engine.decoder.text_config, budget)
    added = _steer_edits([rows[i] for i in unique], device, dtype)

    def step(ids: Tensor, mask: Tensor, added: dict[int, Tensor]) -> Tensor:
        positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
        inputs = {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "past_key_values": cache,
            "use_cache": True,
            "logits_to_keep": 1,
        }
        edits = {layer: partial(_add, v) for layer, v in added.items()}
        logits = engine.forward(inputs, edits=edits).logits
        assert logits is not None
        return logits[:, -1].to(device)

    set_sides([rows[i].side for i in unique])
    logits = step(ids, mask, added)
    set_sides([row.side for row in rows])
    fan_out = [place[key] for key in keys]
    if fan_out != list(range(len(unique))):
        select_rows(cache, fan_out)
        logits, mask = logits[fan_out], mask[fan_out]
    added = _steer_edits(rows, device, dtype)

    draws = torch.from_numpy(
        np.stack([np.random.Generator(np.random.Philox(row.seed)).random(budget, np.float32) for row in rows])
    ).to(device)
    temperature = torch.tensor([row.temperature for row in rows], device=device)
    top_p = torch.tensor([row.top_p for row in rows], device=device)
    limits = [row.max_new_tokens for row in rows]
    out: list[list[int]] = [[] for _ in rows]
    live = list(range(n))  # rows[live[j]] is in row j of the batch
    done = [False] * n
    for t in range(budget):
        tokens = sample(logits, draws[live, t], temperature[live], top_p[live])
        for j, token in enumerate(tokens.tolist()):
            i = live[j]
            if done[i]:
                continue
            if token in stop_ids:
                done[i] = True
                continue
            out[i].append(token)
            done[i] = len(out[i]) >= limits[i]
        keep = [j for j, i in enumerate(live) if not done[i]]
        if not keep:
            break
        if len(keep) <= 0.75 * len(live):
            select_rows(cache, keep)
            live = [live[j] for j in keep]
            set_sides([rows[i].side for i in live])
            tokens, mask = tokens[keep], mask[keep]
            added = {layer: v[keep] for layer, v in added.items()}
        mask = torch.cat([mask, mask.new_ones(len(live), 1)], 1)
        logits = step(tokens[:, None], mask, added)
    return out
