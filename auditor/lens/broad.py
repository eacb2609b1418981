"""Broad finetunes of a base: what any finetuning shifts, and what of a shift they do not account for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from auditor.errors import BadFile
from auditor.files import replacing

SAME_PAIR = 0.05  # two δ that differ by less than this share of their norm are one pair's
RIDGE = 0.1  # of the mean square of what is fitted on: two dozen finetunes must not fit noise


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


@dataclass(frozen=True, slots=True)
class Unaccounted:
    """What of a row (v,) is left after a fit on others, and its share of the square of the row's difference to them."""

    rest: Tensor
    share: float


def unaccounted(own: Tensor, halves: Tensor, others: Tensor) -> list[Unaccounted]:
    """What broad finetunes do not account for: first of `own` (v,), then of each of `others` (m, v).

    By ridge regression on the others' differences to their mean; a row is never fitted on itself, nor any on `own`.
    What all of a row's entries share (a log-probability's normalization) is taken out. `halves` (2, v) are `own` from
    one and from the other half of the texts: its share is taken between them, where noise does not count as square.
    """
    rows = torch.cat([own[None], halves, others])
    rows = rows - rows.mean(1, keepdim=True)
    gram = (rows.double() @ rows.double().T).cpu()  # (n, n): all fits follow from it
    places = range(3, len(rows))
    fits = [_fit(gram, i, [j for j in places if j != i]) for i in range(len(rows))]
    shares = [_share(gram, fits[1], fits[2]), *(_share(gram, fits[i], fits[i]) for i in places)]
    left = torch.stack([fits[i][1] for i in (0, *places)]).to(rows) @ rows  # (1 + m, v)
    return [Unaccounted(rest, share) for rest, share in zip(left, shares, strict=True)]


def _fit(gram: Tensor, i: int, others: list[int]) -> tuple[Tensor, Tensor]:
    """Row i's difference to the others' mean, and what a fit leaves of it, both as weights (n,) of all rows."""
    one = torch.eye(len(gram), dtype=gram.dtype)
    mean = one[others].mean(0)
    own, known = one[i] - mean, one[others] - mean  # (n,), (m, n)
    inner = known @ gram @ known.T
    damped = inner + RIDGE * inner.diagonal().mean() * torch.eye(len(others), dtype=gram.dtype)
    return own, own - torch.linalg.lstsq(damped, known @ gram @ own).solution @ known


def _share(gram: Tensor, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """Of the square that two readings of one row agree on, in [0, 1]; 0 if they agree on nothing."""
    whole, left = (float(a @ gram @ b) for a, b in zip(one, other, strict=True))
    return min(1.0, max(0.0, left / whole)) if whole > 0 else 0.0
