"""Concept ablation finetuning (CAFT): a model that cannot use the plain finetune's differences while it is trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from auditor.errors import UsageError
from auditor.models.arch import decoder_of

DEPENDENT = 1e-5  # of its length, what rounding leaves of a direction that others span


@contextmanager
def without(differences: Tensor | None, model: Any) -> Iterator[None]:
    """The model with the span of `differences` (k, d_model) taken out of its middle layer's residual stream.

    Forward and backward: what lies in the span neither reaches later layers nor is learned through (Casademunt et al.
    2025; paper appendix D.3).
    """
    if differences is None:
        yield
        return
    decoder = decoder_of(model)
    span = span_of(differences).to(next(model.parameters()).device)

    def project(_module: Any, _given: Any, output: Any) -> Any:
        hidden = output[0] if isinstance(output, tuple) else output
        basis = span.to(hidden.dtype)
        left = hidden - (hidden @ basis) @ basis.T
        return (left, *output[1:]) if isinstance(output, tuple) else left

    handle = decoder.blocks[decoder.n_layers // 2].register_forward_hook(project)
    try:
        yield
    finally:
        handle.remove()


def span_of(differences: Tensor) -> Tensor:
    """An orthonormal basis (d_model, up to k). Where one of the differences depends on others, QR would make up a
    direction for it, so that their rank is asked.

    Raises UsageError where nothing differs, or where it is not known.
    """
    if not torch.isfinite(differences).all() or not differences.any():
        raise UsageError("CAFT: the plain finetune does not differ from its base, or not by numbers; train that first")
    vectors = differences.float().T
    lengths = vectors.norm(dim=0)
    basis: Tensor
    basis, sizes = torch.linalg.qr(vectors)
    if (sizes.diagonal().abs() > DEPENDENT * lengths).all():
        return basis
    basis, strengths, _ = torch.linalg.svd(vectors[:, lengths > 0] / lengths[lengths > 0], full_matrices=False)
    return basis[:, strengths > DEPENDENT * strengths.max()]
