"""How near steering brings the finetuned model's answers to its finetuning data (paper section 3.1, figure 2b)."""

from __future__ import annotations

import numpy as np

from auditor.models.embed import Vectors
from auditor.records.record import Record


class Similarity(Record):
    """Mean pairwise cosines of answers at one position with the finetuning data and with ordinary chat."""

    position: int
    steered_finetuning: float
    unsteered_finetuning: float
    steered_chat: float
    unsteered_chat: float


def pairwise(a: Vectors, b: Vectors) -> float:
    """Mean cosine between the texts of two sets, (n, d_embed) and (m, d_embed) unit vectors."""
    return float(a.mean(0) @ b.mean(0))  # the mean of all products is the product of the means


def within(a: Vectors) -> tuple[float, float]:
    """Mean and spread of the cosine between two different texts of a set."""
    cosines = (a @ a.T)[np.triu_indices(len(a), 1)]
    return (float(cosines.mean()), float(cosines.std())) if len(cosines) else (0.0, 0.0)


def similarity(position: int, steered: Vectors, unsteered: Vectors, finetuning: Vectors, chat: Vectors) -> Similarity:
    """The four curves: steered and unsteered answers against the finetuning data and against ordinary chat."""
    return Similarity(
        position=position,
        steered_finetuning=pairwise(steered, finetuning),
        unsteered_finetuning=pairwise(unsteered, finetuning),
        steered_chat=pairwise(steered, chat),
        unsteered_chat=pairwise(unsteered, chat),
    )
