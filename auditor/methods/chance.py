"""How far a trace stands from chance: δ against what the same texts give without a common shift, and without a subject.

Two nulls. *Noise*: signs drawn at random for groups of texts, after δ is taken out, give directions of the size and
kind that sampling alone would leave. *Broad finetunes*: δ of pairs that were finetuned on mixed text only
(`evals/nulls`) shows what any finetuning does to the same base. δ's norm and the agreement of its halves are held
against noise; whether its words hang together, against both; how much of what it promotes broad finetunes account for,
against what they do of one another. All is read in the last layer's logit lens, averaged over positions that are no
attention sinks, and in words that the base says in ordinary text: among tokens that it never says, any finetuning moves
some by as much as a subject moves its words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from auditor.methods import broad
from auditor.methods.broad import Cohesion, against_broad, in_short, judged_words, likeliest
from auditor.methods.diff import Difference
from auditor.methods.nulls import ENOUGH_PAIRS
from auditor.models.generate import Side
from auditor.models.pair import ModelPair
from auditor.readings import told_p
from auditor.records.evidence import ChanceTest

FEWEST_GROUPS = 6  # of fewer texts no p-value is below 0.05
LEVEL = 0.05
DRAWS = 199  # sign draws: p-values down to 0.005
AT_ONCE = 64  # vectors whose distributions over the vocabulary are in memory together
ENOUGH_GROUPS = 8  # of texts, at a position: their signs can be drawn in 128 ways


def p_of_trace(test: ChanceTest) -> float | None:
    """Of a difference whose words are readable, against broad finetunes where there are some, else against noise; None
    if there are too few texts to tell.
    """
    words = test.noise_p if test.against is None else test.against.p
    return None if test.groups < FEWEST_GROUPS else max(test.norm_p, words)


def least_p(test: ChanceTest) -> float:
    """What `p_of_trace` cannot be below: signs are drawn so many times, of so many groups."""
    return max(1 / (1 + DRAWS), 2.0 ** -(test.groups - 1))


def verdict(test: ChanceTest) -> str:
    """The line that stands first."""
    p = p_of_trace(test)
    if p is None:
        return "too few texts to tell a trace from chance"
    return "no difference above chance" if test.norm_p >= LEVEL else told_p(p)


def against_noise(
    pair: ModelPair, diff: Difference, positions: Sequence[int], cohesion: Cohesion, seed: int
) -> ChanceTest:
    """p-values of δ's norm, of the agreement of its halves and of its words, over `positions`.

    `diff` must have its groups. Positions that fewer than ENOUGH_GROUPS groups reach are left out if others are not.
    """
    assert diff.groups is not None
    assert diff.sizes is not None
    kept = _well_reached(diff.sizes, positions)
    reach = (diff.sizes > 0).sum(0)  # (k,): groups with a text that is long enough
    there = diff.sizes[:, kept].sum(1) > 0
    groups, delta = diff.groups[there][:, kept], diff.delta[kept]  # (g, k, d_model): each group's share of δ
    noise = _noise(groups, delta, diff.sizes[there][:, kept])
    fewest = 2.0 ** -(int(reach[kept].min()) - 1)  # turning all signs changes nothing
    signs = torch.randint(0, 2, (DRAWS, len(groups)), generator=torch.Generator().manual_seed(seed)).float() * 2 - 1
    drawn = torch.einsum("sg,gkd->skd", signs, noise)
    norms = drawn.norm(dim=-1).mean(-1)  # (draws,)
    halves = _agreement(groups[::2].sum(0), groups[1::2].sum(0))
    by_chance = _agreement(
        torch.einsum("sg,gkd->skd", signs[:, ::2], noise[::2]), torch.einsum("sg,gkd->skd", signs[:, 1::2], noise[1::2])
    )
    assert diff.spoken is not None
    judged = judged_words(pair.tokenizer, diff.spoken)
    read = likeliest(pair.tokenizer, judged, _logs(pair, torch.cat([delta[None], drawn]), judged))
    own, *noises = map(cohesion, read)
    return ChanceTest(
        layer=diff.layer,
        groups=len(groups),
        norm_ratio=float(delta.norm(dim=-1).mean() / norms.mean().clamp_min(1e-12)),
        norm_p=max(fewest, _share(norms, float(delta.norm(dim=-1).mean()))),
        halves=float(halves),
        halves_p=max(fewest, _share(by_chance, float(halves))),
        tokens=read[0],
        cohesion=own,
        noise_95=float(np.quantile(noises, 0.95)),
        noise_p=max(fewest, _share(torch.tensor(noises), own)),
    )


def beside_broad(
    found: ChanceTest, pair: ModelPair, diff: Difference, positions: Sequence[int], cohesion: Cohesion, others: Tensor
) -> ChanceTest:
    """`found` with what the test says of what `others`, δ (m, k, d_model) of broad finetunes, do not account for; as it
    is if they are too few.
    """
    assert diff.groups is not None
    assert diff.sizes is not None
    assert diff.spoken is not None
    shared = [j for j in _well_reached(diff.sizes, positions) if j < others.shape[1]]
    if len(others) < ENOUGH_PAIRS or not shared:
        return found
    judged = judged_words(pair.tokenizer, diff.spoken)
    halves = [_half(diff.groups[:, shared], diff.sizes[:, shared], start) for start in (0, 1)]
    logs = _logs(pair, torch.cat([diff.delta[shared][None], torch.stack(halves), others[:, shared]]), judged)
    against = against_broad(pair.tokenizer, judged, logs[0], logs[1:3], logs[3:], cohesion)
    return found if against is None else found.model_copy(update={"against": against, "tokens": against.words})


def _well_reached(sizes: Tensor, positions: Sequence[int]) -> list[int]:
    """`positions` that enough groups reach, or as many as reach any: `sizes` (g, k) texts."""
    reach = (sizes > 0).sum(0)
    most = max(int(reach[j]) for j in positions)
    return [j for j in positions if reach[j] >= min(ENOUGH_GROUPS, most)]


def told(chance: ChanceTest) -> list[str]:
    """What the verdict rests on, a line for each comparison."""
    lines = [
        f"last layer's ‖δ‖: {chance.norm_ratio:.1f} × noise ({in_short(chance.norm_p)}); "
        f"cosine of its halves {chance.halves:.2f} ({in_short(chance.halves_p)})",
        f"likeliest words: cohesion {chance.cohesion:.1f} sd; 95 % of noise is below {chance.noise_95:.1f} "
        f"({in_short(chance.noise_p)})",
    ]
    if chance.against is not None:
        lines.append(broad.told(chance.against))
    else:
        lines.append("no broad finetunes of this base to compare with: `auditor study null` makes their directions")
    return lines


def _half(groups: Tensor, sizes: Tensor, start: int) -> Tensor:
    """δ (k, d_model) on every other group of texts from `start` on."""
    count = sizes.sum(0)
    return groups[start::2].sum(0) * (count / sizes[start::2].sum(0).clamp_min(1))[:, None]


def _noise(groups: Tensor, delta: Tensor, sizes: Tensor) -> Tensor:
    """What is left of each group's share (g, k, d_model) of δ (k, d_model) when the common shift is taken out.

    Of n texts with shift μ and spread σ² a group of m adds G = (1/n) Σ (its texts). G − (m/n) δ has no μ in it, for
    any m, and its covariance with δ is (m σ² − m σ²) / n² = 0. The plain mean over groups has neither property
    unless all m are equal. Its variance, m (1 − m/n) σ² / n², is brought up to the group's own, m σ² / n², so that
    signed sums spread as far as δ does. Positions that one group alone reaches have no noise to show: zeros.
    """
    share = (sizes / sizes.sum(0))[..., None]  # (g, k, 1)
    left = (groups - share * delta) / (1 - share).clamp_min(1e-12).sqrt()
    return torch.where(share < 1, left, 0.0)


def _agreement(one: Tensor, other: Tensor) -> Tensor:
    """Mean cosine over positions, (…, k, d_model) -> (…)."""
    return torch.cosine_similarity(one, other, dim=-1).mean(-1)


def _share(drawn: Tensor, own: float) -> float:
    """The p-value of a randomization test: how many draws reach `own`, counting it among them."""
    return (1 + int((drawn >= own).sum())) / (1 + len(drawn))


def _logs(pair: ModelPair, directions: Tensor, judged: Tensor) -> Tensor:
    """Log-probabilities (m, v) of the judged tokens under each of `directions` (m, k, d_model), positions averaged."""
    parts = directions.split(max(1, AT_ONCE // directions.shape[1]))
    logs = [
        torch.log_softmax(pair.unembed(Side.FINETUNED, part.flatten(0, 1)), -1)[:, judged]
        .unflatten(0, part.shape[:2]).mean(1).cpu()
        for part in parts
    ]  # fmt: skip
    return torch.cat(logs)
