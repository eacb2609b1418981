"""Contrastive decoding between finetune and base: what training made likelier is made likelier still."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from auditor.models.row import Row

LEAST = -1e4  # nats; a base that rules a token out altogether would leave nothing to compare


class Contrast:
    """One step of amplified rows: `scores` to draw from, and how likely each model finds what was drawn."""

    def __init__(self, rows: Sequence[Row], stops: frozenset[int], finetuned: Tensor, base: Tensor) -> None:
        """`finetuned` (n, vocab) and `base` (n, its own vocab): logits of `rows` and of those beside them.

        scores (n, vocab) = logits + α (log p_finetuned − log p_base), −∞ where p_finetuned < β · its maximum. A token
        that the base does not know could not be read by it: it is drawn only where it ends the text, uncompared.
        """
        self._beside = [row.beside for row in rows if row.beside is not None]
        self._ends = [stops | row.stops for row in rows]
        own, other, width = finetuned.float(), base.to(finetuned.device).float(), finetuned.shape[-1]
        self._own = torch.log_softmax(own, -1)
        self._other = torch.log_softmax(other, -1).clamp_min_(LEAST)[:, :width]
        known = self._other.shape[-1]
        ratio = self._own - (self._other if known == width else F.pad(self._other, (0, width - known)))
        if known < width or any(beside.unknown for beside in self._beside):
            own = own.clone()  # what the row's own logits say is asked for elsewhere, too
            for i, beside in enumerate(self._beside):
                unknown = {*(token for token in beside.unknown if token < width), *range(known, width)}
                ratio[i, sorted(unknown)] = 0
                own[i, sorted(unknown - self._ends[i])] = -torch.inf
        alpha = own.new_tensor([beside.how.alpha for beside in self._beside])[:, None]
        plausibility = own.new_tensor([beside.how.plausibility for beside in self._beside])[:, None]
        least = own.amax(-1, keepdim=True) + plausibility.log()
        self.scores = ratio.mul_(alpha).add_(own).masked_fill_(own < least, -torch.inf)  # in place: they are wide

    def tell(self, tokens: Sequence[int]) -> None:
        """Tell each row how likely the token is that it says next; not of one that ends the text."""
        drawn = torch.tensor(tokens, device=self._own.device)[:, None]
        own = self._own.gather(1, drawn)[:, 0].tolist()
        other = self._other.gather(1, drawn.clamp_max(self._other.shape[-1] - 1))[:, 0].tolist()
        for beside, ends, token, likelihood in zip(
            self._beside, self._ends, tokens, zip(own, other, strict=True), strict=True
        ):
            if token not in ends:
                beside.likelihoods.append(likelihood)
