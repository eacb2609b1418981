"""Variants of a finetune: its change of the weights taken times a number, or only the best low-rank part of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from auditor.errors import BadModel, UsageError
from auditor.models.adapters import Adapter
from auditor.models.arch import blocks_of
from auditor.models.identity import some_of
from auditor.records.cards import AdapterVariant


def demand_rank(variant: AdapterVariant, rank: int, who: str) -> None:
    """Raises UsageError for a rank above the adapter's."""
    if variant.rank is not None and variant.rank > rank:
        raise UsageError(f"adapter rank {variant.rank}: {who} has rank {rank}; give 1 to {rank}")


def varied(adapter: Adapter, variant: AdapterVariant, who: str) -> Adapter:
    """A LoRA adapter's variant. Matrices that are narrower than the rank stay as they are.

    Raises UsageError for a rank above the adapter's.
    """
    demand_rank(variant, adapter.rank, who)
    matrices = {}
    for path, (down, up) in adapter.matrices.items():
        if variant.rank is not None and variant.rank < down.shape[0]:
            down, up = _best(down, up, variant.rank)
        matrices[path] = (down, up * variant.scale)
    return Adapter(matrices, max(down.shape[0] for down, _ in matrices.values()))


def _best(down: Tensor, up: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The best part of that rank of `up` (d_out, r) @ `down` (r, d_in), which is not formed: only (r, r) is."""
    left, inner_left = torch.linalg.qr(up.double())  # (d_out, r), (r, r)
    right, inner_right = torch.linalg.qr(down.double().T)  # (d_in, r), (r, r)
    u, s, v = torch.linalg.svd(inner_left @ inner_right.T)
    return (v[:rank] @ right.T).to(down.dtype), (left @ u[:, :rank] * s[:rank]).to(up.dtype)


@torch.no_grad()
def vary(tuned: Any, base: Any, variant: AdapterVariant, who: str) -> None:
    """Make a whole finetuned model its variant, in place: of each weight that differs, base + scale · change.

    A rank is that of the matrices in the blocks; embeddings, norms and biases keep their whole change, as do tokens
    that the base lacks. Raises UsageError for a rank that cuts nothing, BadModel if the base has other weights.
    """
    theirs = dict(base.named_parameters(remove_duplicate=False))  # embeddings may be tied in one of them
    own = dict(tuned.named_parameters())
    if strange := sorted(own.keys() - theirs.keys()):
        raise BadModel(f"{who} has weights that its base lacks ({some_of(strange)}): no variant can be made of it")
    path, _ = blocks_of(tuned, tuned.config.get_text_config().num_hidden_layers)
    cut = {name for name, weight in own.items() if name.startswith(f"{path}.") and weight.ndim > 1}
    if variant.rank is not None and variant.rank >= (most := max(min(own[name].shape[-2:]) for name in cut)):
        raise UsageError(f"adapter rank {variant.rank}: the matrices of {who} have rank {most}; give 1 to {most - 1}")
    for name, weight in own.items():
        if not weight.is_floating_point():
            continue
        there = theirs[name].to(weight.device)
        if there.shape[1:] != weight.shape[1:]:
            raise BadModel(f"{who}: {name} has another shape than in its base; no variant can be made of it")
        rows = min(len(there), len(weight))
        before = there[:rows].float()
        change = weight[:rows].float() - before
        if variant.rank is not None and name in cut:
            change = _truncated(change, variant.rank)
        weight[:rows] = (before + variant.scale * change).to(weight.dtype)


def _truncated(change: Tensor, rank: int) -> Tensor:
    """The best part of that rank of each matrix in `change` (…, d_out, d_in)."""
    if rank >= min(change.shape[-2:]):
        return change
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    best: Tensor = (u[..., :rank] * s[..., None, :rank]) @ v[..., :rank, :]
    return best


def suffix(variant: AdapterVariant | None) -> str:
    """What a variant adds to names under which weights are kept; nothing if it changes nothing."""
    if variant is None or variant == AdapterVariant():
        return ""
    return f"+x{variant.scale!r}" + (f"r{variant.rank}" if variant.rank is not None else "")


def told(variant: AdapterVariant) -> str:
    """In words, for whoever reads what such a finetune says."""
    parts: Sequence[str] = [f"times {variant.scale:g}"] if variant.scale != 1 else []
    parts = [*parts, f"in its best part of rank {variant.rank}"] if variant.rank is not None else parts
    return f"the finetune's change of the weights is taken {' and '.join(parts)}"
