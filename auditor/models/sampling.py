"""How a token is drawn: by the Gumbel-max trick, with noise that belongs to the row's seed and step.

An inverse CDF flips tokens by its own rounding: whatever the row's neighbours change in the last bit of a
probability moves every boundary after it. Here a token changes only where two scores tie within that rounding.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

NOISE = 1 << 22  # Gumbel draws, of which each step of a row uses a window as wide as the vocabulary
NUCLEUS = 256  # tokens among which a nucleus is looked for first


def windows(seed: int, steps: int, vocab: int) -> list[int]:
    """Where in the noise each of a row's `steps` begins."""
    return list(map(int, np.random.Generator(np.random.Philox(seed)).integers(0, NOISE - vocab, steps)))


@lru_cache(maxsize=4)
def _noise(device: torch.device) -> Tensor:
    """(NOISE,) standard Gumbel draws, the same on every machine."""
    draws = np.random.Generator(np.random.Philox(0)).random(NOISE)
    draws += 2.0**-54  # log 0 is no number
    for _ in range(2):
        np.negative(np.log(draws, out=draws), out=draws)
    return torch.from_numpy(draws).float().to(device)


def sample(logits: Tensor, begins: Tensor, temperature: Tensor, top_p: Tensor) -> Tensor:
    """One token for each row of logits (n, vocab); temperature 0 is greedy.

    begins (n,): each row's window of the noise; temperature and top_p (n,). Returns (n,) token ids.
    """
    greedy = logits.argmax(-1)
    if bool((temperature == 0).all()):
        return greedy
    scaled = logits.float() / temperature.clamp_min(1e-4)[:, None]
    if bool((top_p < 1).any()):
        scaled = nucleus(scaled, top_p)
    noise = _noise(logits.device).unfold(0, logits.shape[-1], 1)  # (windows, vocab), a view
    return torch.where(temperature == 0, greedy, (scaled + noise[begins]).argmax(-1))


def nucleus(logits: Tensor, top_p: Tensor) -> Tensor:
    """`logits` (n, vocab) with all but each row's likeliest tokens of mass `top_p` (n,) at −inf.

    Sorting a vocabulary costs as much as a layer's forward, so a row is sorted only if its likeliest
    NUCLEUS tokens are not enough; which way a row goes depends on that row alone.
    """
    probs = torch.softmax(logits, -1)
    ranked, order = probs.topk(min(NUCLEUS, probs.shape[-1]), -1)
    fits = ranked.sum(-1) >= top_p
    out = logits.clone()
    for rows, in_head in (((top_p < 1) & fits, True), ((top_p < 1) & ~fits, False)):
        if not bool(rows.any()):
            continue
        chosen, places = (ranked[rows], order[rows]) if in_head else probs[rows].sort(-1, descending=True)
        kept = chosen.cumsum(-1) - chosen < top_p[rows, None]
        inside = torch.zeros_like(probs[rows], dtype=torch.bool).scatter_(-1, places, kept)
        out[rows] = out[rows].masked_fill(~inside, -torch.inf)
    return out
