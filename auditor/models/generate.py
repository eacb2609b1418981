"""What is asked of a model; a text depends only on its prompt, steering and seed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor

from auditor.errors import UsageError

MOST_ALPHA = 100.0
PLAUSIBILITY = 0.1


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
class Amplification:
    """Draw from log p_finetuned + `alpha` · (log p_finetuned − log p_base), of the tokens that the finetune finds at
    least `plausibility` times as likely as its likeliest; what was not changed by training is cut away with `alpha`.
    """

    alpha: float
    plausibility: float = PLAUSIBILITY

    def __post_init__(self) -> None:
        """Raises UsageError."""
        if not 0 <= self.alpha <= MOST_ALPHA:
            raise UsageError(f"amplify: alpha {self.alpha:g}; give a number from 0 to {MOST_ALPHA:g}")
        if not 0 < self.plausibility <= 1:
            raise UsageError(f"amplify: plausibility {self.plausibility:g}; give a share over 0, up to 1")


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
    and `prefill` as the beginning of the answer; without it the prompt is the beginning of a plain text. `user_turn`:
    the model writes the user's words, which `prompt` (or nothing) begins. `amplify`: hold the finetune against the
    base at every token. `verbatim`: the text with the white space that it begins and ends with. `history`: what the
    user said in this chat before, each with the answer.
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
    user_turn: bool = False
    amplify: Amplification | None = None
    verbatim: bool = False
    history: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Raises UsageError for what does not go together."""
        if self.history and (self.user_turn or not self.chat):
            raise UsageError("history: what was said before belongs to a chat in which the model answers")
        if self.amplify is not None:
            demand_amplifiable(self.side, self.steering)
        if self.user_turn and (self.prefill or not self.chat):
            raise UsageError("user_turn: the user's words are written in a chat, and `prompt` begins them, no prefill")

    @property
    def sampling(self) -> Sampling:
        return Sampling(self.seed, self.max_new_tokens, self.temperature, self.top_p)


def going_on(request: Request, text: str) -> Request:
    """`request` once `text` has been said: a prompt that ends with it."""
    if request.user_turn:
        return replace(request, prompt=request.prompt + text)
    return replace(request, prefill=request.prefill + text)


@dataclass(frozen=True, slots=True)
class Amplified:
    """An amplified text, and the mean log-probability of its tokens, in nats; None for a text of none."""

    text: str
    finetuned: float | None
    base: float | None


def demand_amplifiable(side: Side, steering: Steering | None) -> None:
    """Raises UsageError for what cannot be amplified."""
    if side is Side.BASE:
        raise UsageError("amplify: it is the finetuned model that is amplified, against the base")
    if steering is not None:
        raise UsageError("amplify: a text is amplified or steered, not both")


def demand_amplified(requests: Sequence[Request]) -> None:
    """Raises UsageError unless all of `requests` say how they are to be amplified."""
    if any(request.amplify is None for request in requests):
        raise UsageError("amplified: every request must say how, by its `amplify`; alpha 0 is the finetune alone")


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
