"""Token-identity patchscope with a calibrated scale (paper section 3.2 and appendix C)."""

from __future__ import annotations

import torch
from torch import Tensor

from auditor.lens.logit_lens import top_tokens
from auditor.models.generate import Side
from auditor.models.pair import ModelPair
from auditor.types import PatchscopeSettings, TokenSet

TRIPLES = (("man", "1135", "hello"), ("bear", "42", "blue"), ("921", "target", "anna"))


def identity_prompt(words: tuple[str, str, str]) -> str:
    """`A → A`, line by line, and a `?` that the patched residual takes the place of."""
    return "\n".join([*(f"{word} → {word}" for word in words), "?"])


def patchscope(
    pair: ModelPair, layer: int, directions: Tensor, eta: float, settings: PatchscopeSettings
) -> list[list[TokenSet]]:
    """What the finetuned model reads in `directions` (m, d_model) at every scale: [direction][scale].

    The last token's residual after block `layer` becomes λ · η · v/‖v‖. A token counts if it ranks in the top
    `common_top` under all three prompts; tokens are ranked by their mean probability over the prompts.
    """
    unit = directions / directions.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    scales = torch.tensor(settings.scales)
    patches = (eta * scales[None, :, None] * unit[:, None]).flatten(0, 1)  # (m * scales, d_model)
    total: Tensor | None = None
    common: Tensor | None = None
    for words in TRIPLES:
        probs = torch.softmax(pair.patched_logits(Side.FINETUNED, identity_prompt(words), layer, patches), -1)
        top = probs.topk(min(settings.common_top, probs.shape[-1]), -1).indices
        seen = torch.zeros_like(probs, dtype=torch.bool).scatter_(-1, top, True)
        common = seen if common is None else common & seen
        total = probs if total is None else total + probs
    assert total is not None
    assert common is not None
    mean = torch.where(common, total / len(TRIPLES), 0.0)  # (m * scales, vocab)
    sets = [
        TokenSet(scale=scale, tokens=top_tokens(pair, row, settings.keep))
        for row, scale in zip(mean, settings.scales * len(directions), strict=True)
    ]
    step = len(settings.scales)
    return [sets[i * step : (i + 1) * step] for i in range(len(directions))]
