"""What a direction in the middle of the model makes likelier at its end: the logit lens through the blocks between.

The model is asked, not fitted: along one direction the Jacobian is one central difference a text. The direction is
added at every position, as the finetune's own difference is there at every position: what it says by way of the
attention to earlier tokens is then read too. (Added at the last position alone, it named less on the pairs tried.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from auditor.errors import UsageError
from auditor.methods.corpus import Corpus
from auditor.methods.diff import beginnings
from auditor.methods.diff_mining import RARE
from auditor.models.generate import Side
from auditor.models.pair import ModelPair
from auditor.records.record import Record


class JacobianSettings(Record):
    """How many texts are read, how far, and how many tokens are told."""

    texts: int = Field(64, ge=1)
    tokens: int = Field(24, ge=1, description="read of each text; what follows the last is read off")
    shown: int = Field(40, ge=1, description="tokens kept at each end")


class PushedToken(Record):
    """How many nats it gains along the whole vector, and how probable it is without."""

    token: str
    nats: float
    prob: float


class JacobianReading(Record):
    """Of one vector: the tokens that gain most, and those that lose most. Only such as hold a letter or digit."""

    top: tuple[PushedToken, ...]
    bottom: tuple[PushedToken, ...]


@dataclass(frozen=True, slots=True)
class Derivatives:
    """Of the last position's log-probabilities along each of m vectors, in nats for the whole vector: mean over the
    texts (m, vocab); and the model's own mean probabilities there (vocab,). Both in float64.
    """

    scores: Tensor
    usual: Tensor


def step(dtype: str, eta: float, norm: float) -> float:
    """ε, as a share of a vector of length `norm`, where residuals have length `eta`.

    A central difference is off by ε² from its third derivative and by u/ε from rounding; the two are least together
    where ε is about the cube root of u, relative to what it is added to.
    """
    rounding = torch.finfo(getattr(torch, dtype.removeprefix("torch."))).eps
    return float(rounding ** (1 / 3)) * eta / max(norm, 1e-12)


def derivatives(
    pair: ModelPair,
    rows: Sequence[Sequence[int]],
    layer: int,
    vectors: Tensor,
    eta: float,
    side: Side = Side.FINETUNED,
    scale: float = 1.0,
) -> Derivatives:
    """Along each of `vectors` (m, d_model) after block `layer`, over token ids `rows`; `eta`: the residuals' mean norm.

    `scale`: how many times the best step is made. Raises UsageError if there is no row, BadModel for NaN and Inf.
    """
    if not any(rows):
        raise UsageError("there is no text with a token to read; give texts of a few words")
    steps = torch.tensor([scale * step(pair.dtype, eta, float(vector.norm())) for vector in vectors])
    pushes = torch.cat([sign * steps[:, None] * vectors for sign in (1, -1)])  # (2m, d_model)
    m, texts = len(vectors), 0
    scores: Tensor | float = 0.0
    usual: Tensor | float = 0.0
    with torch.inference_mode():
        for logits in pair.pushed_logits(side, rows, layer, pushes):  # (n, 2m, vocab)
            logs = logits.log_softmax(-1)
            apart = (logs[:, :m] - logs[:, m:]) / (2 * steps[:, None].to(logs.device))
            scores = scores + apart.double().sum(0).cpu()
            usual = usual + logs.exp().double().mean(1).sum(0).cpu()
            texts += len(logits)
    assert isinstance(scores, Tensor)
    assert isinstance(usual, Tensor)
    return Derivatives(scores / texts, usual / texts)


def jacobian_lens(
    pair: ModelPair, corpus: Corpus, layer: int, vectors: Tensor, eta: float, settings: JacobianSettings, seed: int = 0
) -> list[JacobianReading]:
    """For each of `vectors` (m, d_model) the tokens that gain and lose most; tokens that the model says less than once
    in a million there are left out. Raises as `derivatives` does.
    """
    rows = beginnings(pair, corpus.take(settings.texts, seed), settings.tokens)
    found = derivatives(pair, rows, layer, vectors, eta)
    return [
        JacobianReading(
            top=_told(pair.tokenizer, scores, found.usual, settings.shown, largest=True),
            bottom=_told(pair.tokenizer, scores, found.usual, settings.shown, largest=False),
        )
        for scores in found.scores
    ]


def _told(tokenizer: Any, scores: Tensor, usual: Tensor, k: int, *, largest: bool) -> tuple[PushedToken, ...]:
    told: list[PushedToken] = []
    for i in scores.argsort(descending=largest).tolist():
        if len(told) == k:
            break
        text = tokenizer.decode([i], skip_special_tokens=True)
        if usual[i] >= RARE and any(map(str.isalnum, text)):
            told.append(PushedToken(token=text, nats=float(scores[i]), prob=float(usual[i])))
    return tuple(told)
