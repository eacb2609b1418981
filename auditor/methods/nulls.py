"""Nulls: what a lens found in broad finetunes, which have no subject, to hold a pair of the same base against."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from scipy.special import stdtr  # scipy.stats takes a second to import
from torch import Tensor

from auditor.errors import BadFile
from auditor.files import replacing

SAME_PAIR = 0.05  # two traces that differ by less than this share of their norm are one pair's
ENOUGH_PAIRS = 5  # broad finetunes from which a spread can be told
COLUMNS = ".columns"  # beside a tensor (m, c) of which only these of (m, n) are not zero throughout; n is the last


@dataclass(frozen=True, slots=True, eq=False)
class Nulls:
    """What `Reading.trace` gave of m pairs over one base that were never narrowly finetuned.

    `traces`: (m, …) float32 by name. `settings` of the lens and `texts` of `corpus` (a SHA-256) are what it read them
    with; `corpus` is empty where the trace is held to be the same on any.
    """

    lens: str
    bases: tuple[str, ...]  # sources of the base, see Weights; `hub:org/name` stands for all its revisions
    traces: Mapping[str, Tensor]
    settings: Mapping[str, Any]
    corpus: str = ""
    texts: int = 0

    def __len__(self) -> int:
        """m."""
        return len(next(iter(self.traces.values()), ()))

    def holds_for(self, sources: Sequence[str]) -> bool:
        """Whether a base from these sources is the one that was finetuned."""
        return any(source in self.bases or source.partition("@")[0] in self.bases for source in sources)

    def read_with(self, settings: Mapping[str, Any], corpus: str, texts: int) -> bool:
        """Whether a reading with these settings is of one kind with them: of no fewer texts, whose noise is no more."""
        return self.settings == settings and (not self.corpus or (self.corpus == corpus and self.texts <= texts))

    def without(self, name: str, own: Tensor) -> Nulls:
        """All but the pair that is being judged, which is known by its own trace called `name`, (…) as one of them."""
        kept = _apart(own, self.traces[name]) > SAME_PAIR
        return replace(self, traces={key: trace[kept] for key, trace in self.traces.items()})


def _apart(own: Tensor, others: Tensor) -> Tensor:
    """How far `own` (…) is from each of `others` (m, …), in shares of its norm: (m,).

    Of matrices (k, d) it is the median over the k, of which one may be all rounding (an attention sink), and as many
    as both have are compared.
    """
    own = own.float()
    if own.ndim < 2:
        own, others = own.reshape(1, -1), others.reshape(len(others), 1, -1)
    k = min(len(own), others.shape[1])
    shares: Tensor = (others[:, :k] - own[:k]).norm(dim=-1) / own[:k].norm(dim=-1).clamp_min(1e-12)  # (m, k)
    return shares.median(-1).values


def prediction(own: float, others: Sequence[float]) -> float:
    """How likely another of the kind of `others` is to reach `own`: Student's t for a new value.

    A handful of pairs cannot give small p-values by counting.
    """
    values = np.asarray(others, float)
    spread = max(float(values.std(ddof=1)) * math.sqrt(1 + 1 / len(values)), 1e-6)
    return float(stdtr(len(values) - 1, -(own - float(values.mean())) / spread))


def write_nulls(path: Path, nulls: Nulls) -> None:
    """As safetensors, with what they belong to in the header; columns that are zero throughout are left out."""
    header = {
        "lens": nulls.lens,
        "bases": " ".join(nulls.bases),
        "settings": json.dumps(dict(nulls.settings)),
        "corpus": nulls.corpus,
        "texts": str(nulls.texts),
    }
    tensors: dict[str, Tensor] = {}
    for name, trace in nulls.traces.items():
        used = trace.abs().amax(0).nonzero()[:, 0] if trace.ndim == 2 else torch.arange(0)
        if trace.ndim == 2 and 2 * len(used) < trace.shape[1]:
            tensors[name] = trace[:, used].contiguous()
            tensors[name + COLUMNS] = torch.cat([used, torch.tensor([trace.shape[1]])]).int()
        else:
            tensors[name] = trace.contiguous()
    with replacing(path) as part:
        save_file(tensors, part, header)


def read_nulls(path: Path) -> Nulls:
    """Raises BadFile if the file is not one that `write_nulls` wrote."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            names = list(file.keys())
            traces = {name: _whole(file, name, names) for name in names if not name.endswith(COLUMNS)}
            return Nulls(
                header["lens"], tuple(header["bases"].split()), traces, json.loads(header["settings"]),
                header["corpus"], int(header["texts"]),
            )  # fmt: skip
    except Exception as error:
        raise BadFile(path, f"no nulls of broad finetunes ({error}); `auditor study null` writes them") from error


def _whole(file: Any, name: str, names: Sequence[str]) -> Tensor:
    stored: Tensor = file.get_tensor(name).float()
    if name + COLUMNS not in names:
        return stored
    *columns, width = file.get_tensor(name + COLUMNS).tolist()
    whole = torch.zeros(len(stored), width)
    whole[:, columns] = stored
    return whole
