"""Tokens that rise at the same positions: several objectives of one finetune come apart (NMF)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from pydantic import Field
from torch import Tensor

from auditor.records.record import Record

COLUMNS = 1_000  # tokens that are grouped: those that rise at most positions
NAMED = 12  # tokens told of each topic


class Topic(Record):
    """Tokens, heaviest first; `share`: of all that rises, what they account for."""

    share: float = Field(ge=0)
    tokens: tuple[str, ...]


def topics_of(tokenizer: Any, where: Tensor, ids: Tensor, values: Tensor, n: int, seed: int) -> tuple[Topic, ...]:
    """`n` groups of tokens from the entries of a (position × token) matrix, (m,) each; the largest group first.

    Negative values count as 0; tokens without a letter or digit do not count.
    """
    from scipy.sparse import csr_matrix
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    columns = ids.bincount().argsort(descending=True, stable=True).tolist()[: 2 * COLUMNS]
    decoded = {i: tokenizer.decode([i], skip_special_tokens=True) for i in columns}
    texts = {i: text for i, text in decoded.items() if any(map(str.isalnum, text))}
    columns = list(texts)[:COLUMNS]
    place = np.full(int(ids.max()) + 1 if len(ids) else 0, -1)
    place[columns] = np.arange(len(columns))
    column = place[ids.numpy()]
    fit = (column >= 0) & (values.numpy() > 0)
    rows = np.unique(where.numpy()[fit], return_inverse=True)[1]
    matrix = csr_matrix((values.numpy()[fit], (rows, column[fit])), shape=(rows.max(initial=-1) + 1, len(columns)))
    n = min(n, *matrix.shape)
    if n < 1:
        return ()
    model = NMF(n, init="nndsvd", random_state=seed % 2**32, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the groups stand long before the last digits do
        weights = model.fit_transform(matrix)  # (rows, n)
    parts: Any = model.components_  # (n, columns)
    mass = weights.sum(0) * parts.sum(1)
    return tuple(
        Topic(
            share=float(mass[i] / mass.sum()),
            tokens=tuple(texts[columns[j]] for j in np.argsort(-parts[i], kind="stable")[:NAMED] if parts[i, j] > 0),
        )
        for i in np.argsort(-mass, kind="stable")
        if mass[i] > 0
    )
