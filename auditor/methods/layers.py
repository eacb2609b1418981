"""Which layers are read, and at which one is steered."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.errors import UsageError


def layers_read(asked: Sequence[int], n_layers: int) -> tuple[int, ...]:
    """The layers that are asked for, or the middle one, floor(L/2). Raises UsageError if the model lacks one."""
    if wrong := [layer for layer in asked if not 0 <= layer < n_layers]:
        raise UsageError(f"layers: {wrong[0]} is not there; this model has layers 0 to {n_layers - 1}")
    return tuple(asked) or (n_layers // 2,)


def nearest_to_middle(layers: Sequence[int], n_layers: int) -> int:
    """Of several layers the one that is steered at: steering at all would take hours."""
    return min(layers, key=lambda layer: abs(layer - n_layers // 2))
