"""How far a trace stands from chance: δ against what the same texts give without a common shift, and without a subject.

Two nulls. *Noise*: signs drawn at random for groups of texts, after δ is taken out, give directions of the size and
kind that sampling alone would leave. *Broad finetunes*: δ of pairs that were finetuned on mixed text only
(`evals/nulls`) shows what any finetuning does to the same base. δ's norm and the agreement of its halves are held
against noise; whether its tokens hang together, against both. Tokens are those of the last layer's logit lens: what the
shift makes likelier, averaged over positions that are no attention sinks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from auditor.errors import BadFile
from auditor.files import replacing
from auditor.lens.diff import Difference
from auditor.lens.finite import checked
from auditor.lens.logit_lens import likeliest
from auditor.models.generate import Side
from auditor.models.pair import ModelPair
from auditor.types import ChanceTest

DRAWS = 199  # sign draws: p-values down to 0.005
TOKENS = 20
SAME_PAIR = 0.05  # two δ that differ by less than this share of their norm are one pair's
ENOUGH_GROUPS = 8  # of texts, at a position: their signs can be drawn in 128 ways
ENOUGH_PAIRS = 5  # broad finetunes from which a spread can be told
AT_ONCE = 64  # vectors whose distributions over the vocabulary are in memory together

Cohesion = Callable[[Sequence[str]], float]
"""How much tokens hang together, in standard deviations above random words."""


@dataclass(frozen=True, slots=True)
class BroadFinetunes:
    """δ (m, k, d_model) at one layer of m pairs over one base that were never narrowly finetuned."""

    bases: tuple[str, ...]  # sources of the base, see Weights; `hub:org/name` stands for all its revisions
    layer: int
    deltas: Tensor

    @property
    def digest(self) -> str:
        """SHA-256 of the directions."""
        return hashlib.sha256(self.deltas.numpy().tobytes()).hexdigest()

    def holds_for(self, sources: Sequence[str]) -> bool:
        """Whether a base from these sources is the one that was finetuned."""
        return any(source in self.bases or source.partition("@")[0] in self.bases for source in sources)

    def without(self, delta: Tensor) -> Tensor:
        """All but the pair that is being judged, which is known by its own δ (k, d_model)."""
        k = min(len(delta), self.deltas.shape[1])
        apart = (self.deltas[:, :k] - delta[:k]).norm(dim=-1) / delta[:k].norm(dim=-1).clamp_min(1e-12)
        return self.deltas[apart.median(-1).values > SAME_PAIR]  # a sink among the positions is all rounding


def write_broad(path: Path, pairs: BroadFinetunes) -> None:
    """As safetensors, with what they belong to in the header."""
    header = {"bases": " ".join(pairs.bases), "layer": str(pairs.layer)}
    with replacing(path) as part:
        save_file({"deltas": pairs.deltas.contiguous()}, part, header)


def read_broad(path: Path) -> BroadFinetunes:
    """Raises BadFile if the file is not one that `write_broad` wrote."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            return BroadFinetunes(tuple(header["bases"].split()), int(header["layer"]), file.get_tensor("deltas"))
    except Exception as error:
        raise BadFile(path, f"not directions of broad finetunes ({error}); `auditor study null` writes them") from error


def against_chance(
    pair: ModelPair, diff: Difference, positions: Sequence[int], cohesion: Cohesion,
    broad: BroadFinetunes | None, seed: int,
) -> ChanceTest:  # fmt: skip
    """p-values of δ's norm, of the agreement of its halves and of its tokens' cohesion, over `positions`.

    `diff` must have its groups. Positions that fewer than ENOUGH_GROUPS of them reach are left out if others are not.
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
    tokens, own = _reading(pair, delta[None], cohesion)
    _, noises = _reading(pair, drawn, cohesion)
    found = ChanceTest(
        layer=diff.layer,
        groups=len(groups),
        norm_ratio=float(delta.norm(dim=-1).mean() / norms.mean().clamp_min(1e-12)),
        norm_p=max(fewest, _share(norms, float(delta.norm(dim=-1).mean()))),
        halves=float(halves),
        halves_p=max(fewest, _share(by_chance, float(halves))),
        tokens=tokens,
        cohesion=own[0],
        noise_95=float(torch.tensor(noises).quantile(0.95)),
        noise_p=max(fewest, _share(torch.tensor(noises), own[0])),
    )
    others = broad.without(diff.delta) if broad is not None and broad.layer == diff.layer else torch.zeros(0, 0)
    shared = [j for j in kept if j < others.shape[1]]
    if len(others) < ENOUGH_PAIRS or not shared:
        return found
    tokens, lifted = _reading(pair, torch.cat([diff.delta[shared][None], others[:, shared]]), cohesion, lift=True)
    return found.model_copy(
        update={
            "tokens": tokens,
            "broad": len(others),
            "broad_cohesion": lifted[0],
            "broad_95": sorted(lifted[1:])[math.ceil(0.95 * len(others)) - 1],
            "broad_p": _prediction(lifted[0], lifted[1:]),
        }
    )


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


def _prediction(own: float, others: Sequence[float]) -> float:
    """How likely another broad finetune is to reach `own`: Student's t for a new value, on the root of cohesion.

    A handful of pairs cannot give small p-values by counting. The root makes their right-skewed cohesion nearly normal.
    """
    roots = torch.tensor([math.sqrt(max(0.0, value)) for value in others], dtype=torch.float64)
    n = len(roots)
    spread = float(roots.std()) * math.sqrt(1 + 1 / n)
    t = (math.sqrt(max(0.0, own)) - float(roots.mean())) / max(spread, 1e-6)
    return _t_tail(t, n - 1)


def _t_tail(t: float, freedom: int) -> float:
    """P(T > t) of Student's t, by the trapezoid rule over the angle whose tangent is T / √freedom."""
    angles = torch.linspace(math.atan(t / math.sqrt(freedom)), math.pi / 2, 4001, dtype=torch.float64)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return float(scale * torch.trapezoid(angles.cos() ** (freedom - 1), angles))


def _reading(
    pair: ModelPair, directions: Tensor, cohesion: Cohesion, *, lift: bool = False
) -> tuple[tuple[str, ...], list[float]]:
    """Tokens of the first of `directions` (m, k, d_model), and the cohesion of each one's.

    With `lift` a token counts by how much likelier it is than under the others but the first, on average.
    """
    parts = directions.split(max(1, AT_ONCE // directions.shape[1]))
    logs = [
        torch.log_softmax(pair.unembed(Side.FINETUNED, part.flatten(0, 1)), -1).unflatten(0, part.shape[:2]).mean(1)
        for part in parts
    ]
    checked(torch.cat(logs), pair, "what the last layer's logit lens reads")
    if lift:
        whole = torch.cat(logs)  # (m, vocab)
        total, n = whole[1:].sum(0), len(whole) - 1
        rest = (total - whole[1:]) / (n - 1)
        logs = [torch.cat([whole[:1] - total / n, whole[1:] - rest])]
    read = [
        tuple(token.token for token in tokens) for part in logs for tokens in likeliest(pair.tokenizer, part, TOKENS)
    ]
    return read[0], [cohesion(tokens) for tokens in read]
