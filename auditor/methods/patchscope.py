"""Token-identity patchscope with a calibrated scale (paper section 3.2 and appendix C)."""

from __future__ import annotations

import torch
from torch import Tensor

from auditor.methods.logit_lens import likeliest
from auditor.models.generate import Side
from auditor.models.pair import ModelPair
from auditor.records.evidence import PatchscopeSettings, TokenSet

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
    prompts = [identity_prompt(words) for words in TRIPLES]
    read = [
        tokens
        for logits in pair.patched_logits(Side.FINETUNED, prompts, layer, patches)
        for tokens in likeliest(pair.tokenizer, _mean_over_prompts(logits, settings), settings.keep)
    ]
    step = len(settings.scales)
    sets = [TokenSet(scale=settings.scales[i % step], tokens=tokens) for i, tokens in enumerate(read)]
    return [sets[i * step : (i + 1) * step] for i in range(len(directions))]


def _mean_over_prompts(logits: tuple[Tensor, ...], settings: PatchscopeSettings) -> Tensor:
    """Mean probabilities (rows, vocab) over the prompts, 0 for tokens outside any prompt's top `common_top`.

    Finding the value at that rank costs a third of the sweep, so rows are first tried without it: a row whose
    likeliest tokens all rank high enough loses none of them.
    """
    mean = torch.softmax(logits[0], -1)
    for rows in logits[1:]:
        mean += torch.softmax(rows, -1)
    mean /= len(logits)
    ids = mean.topk(min(settings.keep, mean.shape[-1]), -1).indices
    above = torch.empty_like(mean)  # one buffer for all prompts: fresh memory costs more than the comparison
    ranks = torch.stack(
        [torch.ge(rows, rows.gather(-1, ids).amin(-1, keepdim=True), out=above).sum(-1) for rows in logits]
    )  # (prompts, rows): of the least likely of those tokens
    for i in (ranks.amax(0) > settings.common_top).nonzero()[:, 0].tolist():
        for rows in logits:
            outside = rows.shape[-1] - settings.common_top
            mean[i, rows[i] <= rows[i].kthvalue(outside).values] = 0.0
    return mean
