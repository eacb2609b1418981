"""How likely a model finds the tokens of a text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from auditor.models.engine import Engine, replace
from auditor.models.stream import unembed

UNEMBEDDED_AT_ONCE = 512  # tokens whose logits are in memory together


def token_nll(
    engine: Engine,
    rows: Sequence[Sequence[int]],
    counted: Sequence[Sequence[bool]] | None = None,
    resumed: tuple[int, Tensor] | None = None,
) -> list[Tensor]:
    """Negative log-likelihoods of each row's counted tokens (default: all), the first left out.

    `resumed`: a layer and the residuals after it, from which the blocks above go on.
    """
    last = engine.decoder.n_layers - 1
    inputs = padded(rows, next(engine.decoder.model.parameters()).device)
    if resumed is None:
        hidden = engine.forward(inputs, capture=[last], stop=True).residuals[last]
    else:
        layer, stream = resumed
        edits = {layer: partial(replace, stream)}
        hidden = engine.forward(inputs, capture=[last], edits=edits, stop=True, start=layer + 1).residuals[last]
    flags = [[True] * len(tokens) for tokens in rows] if counted is None else counted
    kept = pad_sequence([torch.tensor(row[1:], dtype=torch.bool) for row in flags], batch_first=True).to(hidden.device)
    parts = zip(
        hidden[:, :-1][kept].split(UNEMBEDDED_AT_ONCE),
        inputs["input_ids"].to(hidden.device)[:, 1:][kept].split(UNEMBEDDED_AT_ONCE),
        strict=True,
    )
    nll = [
        F.cross_entropy(logits, target.to(logits.device), reduction="none")
        for logits, target in ((unembed(engine, part), target) for part, target in parts)
    ]
    return list(torch.cat(nll).cpu().split([sum(row[1:]) for row in flags]))


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> dict[str, Any]:
    """Inputs of a forward pass, padded on the right, where causal attention never looks."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        mask[row, : len(tokens)] = 1
    return {
        "input_ids": ids.to(device),
        "attention_mask": mask.to(device),
        "use_cache": False,
        "logits_to_keep": 1,
    }
