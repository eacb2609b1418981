"""How likely a model finds the tokens of a text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from auditor.models.engine import Engine, replace

UNEMBEDDED_AT_ONCE = 512  # tokens whose logits are in memory together


def token_nll(engine: Engine, rows: Sequence[Sequence[int]], resumed: tuple[int, Tensor] | None = None) -> list[Tensor]:
    """Negative log-likelihoods (len - 1,) of each row's tokens but the first.

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
    kept = inputs["attention_mask"][:, 1:].bool()
    parts = zip(
        hidden[:, :-1][kept].split(UNEMBEDDED_AT_ONCE),
        inputs["input_ids"][:, 1:][kept].split(UNEMBEDDED_AT_ONCE),
        strict=True,
    )
    nll = [F.cross_entropy(engine.decoder.unembed(part), target, reduction="none") for part, target in parts]
    return list(torch.cat(nll).cpu().split([len(tokens) - 1 for tokens in rows]))


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
