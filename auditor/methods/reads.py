"""One layer's δ, read by logit lens and patchscope."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from auditor.methods.diff import Difference
from auditor.methods.found import Patched, PatchedAt, Promoted, PromotedAt
from auditor.methods.logit_lens import logit_lens
from auditor.methods.patchscope import patchscope
from auditor.methods.words import as_word
from auditor.models.pair import ModelPair
from auditor.records.evidence import PatchscopeReading, PatchscopeSettings, ScaleChoice, TokenSet

FIRST = 20  # tokens of a patchscope that are looked for among the logit lens'

Scales = Callable[[Sequence[Sequence[TokenSet]]], Sequence[ScaleChoice]]
"""Judges of many sweeps the best scale of each."""
"""A judge of scales."""


def promoted_at(pair: ModelPair, diff: Difference, tokens: int, means: int) -> PromotedAt:
    """The logit lens of δ, `tokens` at each end, and of both means."""
    k = len(diff.delta)
    own = logit_lens(pair, diff.delta, tokens)
    plain = logit_lens(pair, torch.cat([diff.base, diff.finetuned]), means)
    places = tuple(
        Promoted(
            position=diff.positions[j], sink=diff.sinks[j], read=own[j], base=plain[j].top,
            finetuned=plain[k + j].top,
        )
        for j in range(k)
    )  # fmt: skip
    return PromotedAt(layer=diff.layer, positions=places)


def patched_at(
    pair: ModelPair,
    diff: Difference,
    settings: PatchscopeSettings,
    scales: Scales,
    promoted: PromotedAt | None = None,
) -> PatchedAt:
    """The patchscope of δ, both means and −δ at the scales that `scales` finds best; `promoted`: the last layer's."""
    k = len(diff.delta)
    sources = torch.cat([diff.delta, diff.base, diff.finetuned, -diff.delta])
    sweeps = list(patchscope(pair, diff.layer, sources, diff.eta, settings))
    read = [_graded(*graded) for graded in zip(sweeps, scales(sweeps), strict=True)]
    places = tuple(
        Patched(
            position=diff.positions[j], sink=diff.sinks[j], read=read[j],
            shared=_shared(read[j], promoted.positions[j]) if promoted else 0,
            base=read[k + j].tokens, finetuned=read[2 * k + j].tokens, negative=read[3 * k + j].tokens,
        )
        for j in range(k)
    )  # fmt: skip
    return PatchedAt(layer=diff.layer, positions=places)


def _graded(sweep: Sequence[TokenSet], choice: ScaleChoice) -> PatchscopeReading:
    return PatchscopeReading(choice=choice, tokens=next(s.tokens for s in sweep if s.scale == choice.scale))


def _shared(read: PatchscopeReading, promoted: Promoted) -> int:
    known = {token.token.strip().lower() for token in promoted.read.top}
    return len(known & {as_word(token.token) for token in read.tokens[:FIRST]})
