"""Probabilities that are no numbers: told where they arise, before they are written anywhere."""

from __future__ import annotations

from torch import Tensor

from auditor.errors import BadModel
from auditor.models.pair import ModelPair


def checked(values: Tensor, pair: ModelPair, where: str) -> Tensor:
    """`values` as they are. Raises BadModel if one is NaN or Inf; residuals are looked at where they are read."""
    if bool(values.isfinite().all()):
        return values
    dtype = pair.dtype.removeprefix("torch.")
    advice = "try AUDITOR_DTYPE=bfloat16 or float32" if dtype == "float16" else "the model's weights are broken"
    raise BadModel(f"{pair.name}: NaN or Inf in {where} in {dtype}; {advice}")
