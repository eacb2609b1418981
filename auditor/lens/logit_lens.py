"""Logit lens of a direction (paper section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from auditor.models.generate import Side
from auditor.models.pair import ModelPair
from auditor.types import LensReading, ScoredToken


def logit_lens(pair: ModelPair, vectors: Tensor, k: int) -> list[LensReading]:
    """softmax(W_U · final_norm(v)) for each of `vectors` (n, d_model): the `k` likeliest and unlikeliest tokens."""
    probs = torch.softmax(pair.unembed(Side.FINETUNED, vectors), -1)  # (n, vocab)
    return [
        LensReading(
            top=top_tokens(pair, row, k),
            bottom=top_tokens(pair, -row, k, sign=-1.0),
        )
        for row in probs
    ]


def top_tokens(pair: ModelPair, weights: Tensor, k: int, sign: float = 1.0) -> tuple[ScoredToken, ...]:
    """The `k` largest of `weights` (vocab,) as tokens that print."""
    values, ids = weights.topk(min(k, weights.shape[-1]))
    return tuple(
        ScoredToken(token=pair.tokenizer.decode([i]), prob=sign * value)
        for i, value in zip(ids.tolist(), values.tolist(), strict=True)
    )
