"""Keys and values of a batch whose rows come and go, in buffers that stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicLayer


@dataclass
class Frame:
    """The part of the buffers that is in use: rows [0, rows), columns [first, column)."""

    rows: int = 0
    first: int = 0
    column: int = 0


class SlotLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of every row in one buffer (rows, heads, columns, d_head)."""

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.frame = frame
        self.buffers: list[Tensor] = []

    def update(self, key_states: Tensor, value_states: Tensor, *_args: Any, **_more: Any) -> tuple[Tensor, Tensor]:
        at, views = self.frame, []
        for buffer, new in zip(self.buffers, (key_states, value_states), strict=True):
            buffer[: at.rows, :, at.column : at.column + 1] = new
            views.append(buffer[: at.rows, :, at.first : at.column + 1])
        return views[0], views[1]

    def get_seq_length(self) -> int:
        return self.frame.column - self.frame.first

    def lay(self, slot: int, states: Sequence[Tensor]) -> None:
        """Put prefilled keys and values (n, heads, length, d_head) into rows from `slot` on, up to the column."""
        for buffer, new in zip(self.buffers, states, strict=True):
            buffer[slot : slot + len(new), :, self.frame.column - new.shape[-2] : self.frame.column] = new

    def reframe(self, rows: int, columns: int, shift: int, like: Sequence[Tensor]) -> None:
        """Buffers of `rows` and `columns`, what is in use `shift` columns further right; zeros elsewhere."""
        at, old = self.frame, self.buffers
        self.buffers = [some.new_zeros(rows, some.shape[1], columns, some.shape[3]) for some in like]
        for buffer, before in zip(self.buffers, old, strict=False):
            used = before[: at.rows, :, at.first : at.column]
            buffer[: at.rows, :, at.first + shift : at.column + shift] = used

    def move(self, source: int, target: int) -> None:
        """Row `source` takes the place of row `target`."""
        at = self.frame
        for buffer in self.buffers:
            buffer[target, :, at.first : at.column] = buffer[source, :, at.first : at.column]
