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

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from auditor.lens.broad import unaccounted
from auditor.lens.diff import Difference
from auditor.lens.nulls import ENOUGH_PAIRS, prediction
from auditor.lens.words import as_word, is_everybodys
from auditor.models.generate import Side
from auditor.models.pair import ModelPair
from auditor.types import ChanceTest

DRAWS = 199  # sign draws: p-values down to 0.005
WORDS = 20
SPOKEN = 0.1  # a word counts from this share on of what it would get if all tokens were said alike
AT_ONCE = 64  # vectors whose distributions over the vocabulary are in memory together
ENOUGH_GROUPS = 8  # of texts, at a position: their signs can be drawn in 128 ways
EDGE = 0.005  # shares are not told apart nearer to 0 and 1

Cohesion = Callable[[Sequence[str]], float]
"""How much tokens hang together, in standard deviations above random words."""


def against_chance(
    pair: ModelPair, diff: Difference, positions: Sequence[int], cohesion: Cohesion,
    broad: Tensor | None, seed: int,
) -> ChanceTest:  # fmt: skip
    """p-values of δ's norm, of the agreement of its halves and of its words, over `positions`.

    `diff` must have its groups; `broad`: δ (m, k, d_model) of broad finetunes. Positions that fewer than ENOUGH_GROUPS
    groups reach are left out if others are not.
    """
    assert diff.groups is not None
    assert diff.sizes is not None
    reach = (diff.sizes > 0).sum(0)  # (k,): groups with a text that is long enough
    most = max(int(reach[j]) for j in positions)
    kept = [j for j in positions if reach[j] >= min(ENOUGH_GROUPS, most)]
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
    judged = _judged(pair, diff)
    read = _likeliest(pair, judged, _logs(pair, torch.cat([delta[None], drawn]), judged))
    own, *noises = map(cohesion, read)
    found = ChanceTest(
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
    if broad is None:
        return found
    return found.model_copy(update=_against_broad(pair, diff, kept, judged, broad, cohesion))


def told(chance: ChanceTest) -> list[str]:
    """What the verdict rests on, a line for each comparison."""
    lines = [
        f"last layer's ‖δ‖: {chance.norm_ratio:.1f} × noise ({_p(chance.norm_p)}); "
        f"cosine of its halves {chance.halves:.2f} ({_p(chance.halves_p)})",
        f"likeliest words: cohesion {chance.cohesion:.1f} sd; 95 % of noise is below {chance.noise_95:.1f} "
        f"({_p(chance.noise_p)})",
    ]
    if chance.broad_p is not None:
        lines.append(
            f"{chance.broad} broad finetunes leave {chance.unlike:.0%} of what it promotes unaccounted for; "
            f"95 % of them leave less than {chance.unlike_95:.0%} of one another; these words' cohesion "
            f"{chance.broad_cohesion:.1f} sd; 95 % of theirs are below {chance.broad_95:.1f} ({_p(chance.broad_p)})"
        )
    else:
        lines.append("no broad finetunes of this base to compare with: `auditor study null` makes their directions")
    return lines


def _p(value: float) -> str:
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _against_broad(
    pair: ModelPair, diff: Difference, kept: Sequence[int], judged: Tensor, others: Tensor, cohesion: Cohesion
) -> dict[str, object]:
    """What the test says of what `others` (m, k, d_model) do not account for; nothing if they are too few.

    A subject is promoted beyond what any finetuning promotes (`unlike`) and hangs together (`broad_cohesion`); both are
    measured on each of the others, too. The p-value is of their sum, each in its standard deviations over the others.
    """
    assert diff.groups is not None
    assert diff.sizes is not None
    shared = [j for j in kept if j < others.shape[1]]
    if len(others) < ENOUGH_PAIRS or not shared:
        return {}
    halves = [_half(diff.groups[:, shared], diff.sizes[:, shared], start) for start in (0, 1)]
    logs = _logs(pair, torch.cat([diff.delta[shared][None], torch.stack(halves), others[:, shared]]), judged)
    left = unaccounted(logs[0], logs[1:3], logs[3:])
    read = _likeliest(pair, judged, torch.stack([found.rest for found in left]))
    cohesions = np.array([cohesion(tokens) for tokens in read])
    shares = np.array([found.share for found in left])
    # The root makes right-skewed cohesion nearly normal, the logit does it for shares.
    roots = np.sqrt(cohesions.clip(0))
    logits = np.log(shares.clip(EDGE, 1 - EDGE)) - np.log1p(-shares.clip(EDGE, 1 - EDGE))
    both = sum((values - values[1:].mean()) / max(values[1:].std(ddof=1), 1e-6) for values in (roots, logits))
    return {
        "tokens": read[0],
        "broad": len(others),
        "broad_cohesion": float(cohesions[0]),
        "broad_95": float(np.quantile(cohesions[1:], 0.95)),
        "unlike": float(shares[0]),
        "unlike_95": float(np.quantile(shares[1:], 0.95)),
        "broad_p": prediction(both[0], both[1:]),
    }


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


def _judged(pair: ModelPair, diff: Difference) -> Tensor:
    """Ids of the words that the base says in ordinary text; of all tokens that it says if it says too few words."""
    assert diff.spoken is not None
    said = (diff.spoken >= SPOKEN / len(diff.spoken)).nonzero()[:, 0].tolist()
    read = {i: as_word(pair.tokenizer.decode([i])) for i in said}
    words = [i for i, word in read.items() if word and not is_everybodys(word)]
    return torch.tensor(words if len(words) >= WORDS else said)


def _logs(pair: ModelPair, directions: Tensor, judged: Tensor) -> Tensor:
    """Log-probabilities (m, v) of the judged tokens under each of `directions` (m, k, d_model), positions averaged."""
    parts = directions.split(max(1, AT_ONCE // directions.shape[1]))
    logs = [
        torch.log_softmax(pair.unembed(Side.FINETUNED, part.flatten(0, 1)), -1)[:, judged]
        .unflatten(0, part.shape[:2]).mean(1).cpu()
        for part in parts
    ]  # fmt: skip
    return torch.cat(logs)


def _likeliest(pair: ModelPair, judged: Tensor, scores: Tensor) -> list[tuple[str, ...]]:
    """The WORDS highest of each row of `scores` (m, v), as they print."""
    best = judged[scores.topk(min(WORDS, len(judged))).indices].tolist()
    return [tuple(pair.tokenizer.decode([i]) for i in row) for row in best]
