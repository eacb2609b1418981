"""Logit lens of a direction (paper section 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from auditor.models.generate import Side
from auditor.models.pair import ModelPair
from auditor.records.evidence import LensReading, ScoredToken

ROWS_AT_ONCE = 256  # vectors whose distributions over the vocabulary are in memory together


def logit_lens(pair: ModelPair, vectors: Tensor, k: int) -> list[LensReading]:
    """softmax(W_U · final_norm(v)) for each of `vectors` (n, d_model): the `k` likeliest and unlikeliest tokens."""
    read = []
    for part in vectors.split(ROWS_AT_ONCE):
        probs = torch.softmax(pair.unembed(Side.FINETUNED, part), -1)  # (rows, vocab)
        ends = zip(likeliest(pair.tokenizer, probs, k), likeliest(pair.tokenizer, probs, k, largest=False), strict=True)
        read += [LensReading(top=top, bottom=bottom) for top, bottom in ends]
    return read


def likeliest(tokenizer: Any, probs: Tensor, k: int, *, largest: bool = True) -> list[tuple[ScoredToken, ...]]:
    """The `k` largest (or smallest) of each row of `probs` (n, vocab) as tokens that print."""
    values, ids = probs.topk(min(k, probs.shape[-1]), largest=largest)
    names = _names(tokenizer, ids.flatten().tolist())
    return [
        tuple(ScoredToken(token=names[i], prob=p) for i, p in zip(*row, strict=True))
        for row in zip(ids.tolist(), values.tolist(), strict=True)
    ]


def _names(tokenizer: Any, ids: list[int]) -> dict[int, str]:
    """Each id as it prints; asked for once, since a sweep names the same few thousand tokens again and again."""
    return {i: tokenizer.decode([i]) for i in set(ids)}
