"""What δ does to the loss (paper section 5, equations 1 and 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from auditor.errors import UsageError
from auditor.models.generate import Side
from auditor.models.pair import ModelPair
from auditor.models.tokens import all_plain_ids
from auditor.records.record import Record
from auditor.training.documents import Example


class CausalEffect(Record):
    """What swapping one direction's component does to the loss, in nats per token."""

    loss: float = Field(description="without the intervention")
    effect: float = Field(description="with it, minus without")
    error: float = Field(description="standard error over texts")


def causal_effects(
    pair: ModelPair, host: Side, examples: Sequence[Example], layer: int, directions: Tensor
) -> list[CausalEffect]:
    """For each of `directions` (m, d_model): the host model's loss with its component along it swapped, minus without.

    Raises UsageError if nothing is learned in any of them.

    h̃ = P h_other + (I − P) h_host after block `layer`, at all positions, P = v vᵀ/‖v‖²; loss in nats per learned token.
    """
    rows, learned = [e.ids for e in examples], [e.learned for e in examples]
    sums, counts = pair.swapped_nll(host, rows, learned, layer, directions)  # (n, 1 + m), (n,)
    kept = counts > 0
    if not bool(kept.any()):
        raise UsageError("none of the texts has a learned token within its first tokens; give more --tokens")
    sums, counts = sums[kept], counts[kept]
    effect = (sums[:, 1:] - sums[:, :1]).sum(0) / counts.sum()  # (m,)
    off = (sums[:, 1:] - sums[:, :1]) - effect * counts[:, None]
    error = off.norm(dim=0) / counts.sum()  # of a ratio of sums over texts
    loss = float(sums[:, 0].sum() / counts.sum())
    return [CausalEffect(loss=loss, effect=float(e), error=float(s)) for e, s in zip(effect, error, strict=True)]


def random_directions(count: int, d_model: int, seed: int) -> Tensor:
    """Directions without preference, (count, d_model): the paper's baseline."""
    return torch.randn(count, d_model, generator=torch.Generator().manual_seed(seed))


def random_differences(pair: ModelPair, texts: Sequence[str], layer: int, count: int, seed: int) -> Tensor:
    """h_ft − h_base at single random tokens of `texts`, (count, d_model): the models do differ along these.

    Raises UsageError if no text has two tokens.
    """
    rng = torch.Generator().manual_seed(seed)
    encoded = [ids[:128] for ids in all_plain_ids(pair.tokenizer, texts) if len(ids) > 1]
    if not encoded:
        raise UsageError("every text of the corpus is shorter than two tokens; give longer ones")
    found = []
    for number in torch.randint(len(encoded), (count,), generator=rng).tolist():
        ids = torch.tensor([encoded[number]])
        at = int(torch.randint(1, ids.shape[1], (1,), generator=rng))
        ids = ids[:, : at + 1]
        tuned, base = (pair.residuals(side, ids, [layer])[layer][0, at].cpu() for side in (Side.FINETUNED, Side.BASE))
        found.append(tuned - base)
    return torch.stack(found)
