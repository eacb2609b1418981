"""What is asked of a model; a text depends only on its prompt, steering and seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor


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
class Sampling:
    """How tokens are drawn. `temperature` 0 is greedy."""

    seed: int = 0
    max_new_tokens: int = 128
    temperature: float = 1.0
    top_p: float = 1.0


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

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.seed, self.max_new_tokens, self.temperature, self.top_p)


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from anything printable; the same parts give the same seed on every machine."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def steer_edits(rows: Sequence[Steering | None], device: torch.device, dtype: torch.dtype) -> dict[int, Tensor]:
    """Per layer, what each row adds: (n, 1, d_model), zeros for rows that are not steered there."""
    out: dict[int, Tensor] = {}
    for i, steering in enumerate(rows):
        if steering is None:
            continue
        if steering.layer not in out:
            width = steering.vector.shape[-1]
            out[steering.layer] = torch.zeros(len(rows), 1, width, device=device, dtype=dtype)
        out[steering.layer][i, 0] = steering.vector.to(device, dtype)
    return out


def add(vector: Tensor, hidden: Tensor) -> Tensor:
    """An edit, once `vector` (rows, 1, d_model) is given."""
    return hidden + vector.to(hidden.device)  # blocks may lie on several GPUs
