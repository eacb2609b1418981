"""Which layers are read, and at which one is steered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from auditor.errors import UsageError

Layer = Annotated[
    Annotated[int, Field(ge=0)] | Annotated[float, Field(ge=0, le=1)],
    Field(description="its number, or a fraction of the depth: 0.5 is the middle, 1.0 the last"),
]
"""How a tool's caller names a layer."""


def layers_read(asked: Sequence[int], n_layers: int) -> tuple[int, ...]:
    """The layers that are asked for, or the middle one, floor(L/2). Raises UsageError if the model lacks one."""
    if wrong := [layer for layer in asked if not 0 <= layer < n_layers]:
        raise UsageError(f"layers: {wrong[0]} is not there; this model has layers 0 to {n_layers - 1}")
    return tuple(asked) or (n_layers // 2,)


def numbered(layer: int | float, n_layers: int) -> int:
    """The layer that is meant; of a fraction floor(fraction · L), so that a half is the middle one."""
    return layer if isinstance(layer, int) else min(n_layers - 1, int(layer * n_layers))


def nearest_to_middle(layers: Sequence[int], n_layers: int) -> int:
    """Of several layers the one that is steered at: steering at all would take hours."""
    return min(layers, key=lambda layer: abs(layer - n_layers // 2))
