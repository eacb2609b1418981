"""A key/value cache that grows in place.

transformers' `DynamicLayer` concatenates, so that decoding copies the whole cache once per token and layer;
here each layer owns a buffer with room for the answer, and a step writes one column.
"""

from __future__ import annotations

import copy
from typing import Any

from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class GrowingLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values as views (rows, heads, length, d_head) of buffers with spare columns."""

    def __init__(self, spare: int) -> None:
        super().__init__()
        self.spare = spare
        self.keys: Tensor
        self.values: Tensor
        self._buffers: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        old = self.get_seq_length()
        new = old + key_states.shape[-2]
        if self._buffers is None or new > self._buffers[0].shape[-2]:
            self._buffers = (
                self._grown(self.keys, key_states, new),
                self._grown(self.values, value_states, new),
            )
        keys, values = self._buffers
        keys[..., old:new, :] = key_states
        values[..., old:new, :] = value_states
        self.keys, self.values = keys[..., :new, :], values[..., :new, :]
        return self.keys, self.values

    def _grown(self, held: Tensor, like: Tensor, length: int) -> Tensor:
        *lead, _, d_head = like.shape
        buffer = like.new_empty((*lead, length + self.spare, d_head))
        if held.numel():
            buffer[..., : held.shape[-2], :] = held
        return buffer

    def forget_buffers(self) -> None:
        """The keys and values are no longer views of them."""
        self._buffers = None


def growing_cache(config: Any, spare: int) -> DynamicCache:
    """A cache for `config`'s model with room for `spare` more tokens; sliding-window layers stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer(spare) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def repeated(cache: DynamicCache, rows: int) -> DynamicCache:
    """A cache of its own with `cache`'s one row `rows` times; layers that are never written to share its memory."""
    many = copy.copy(cache)
    many.layers = [copy.copy(layer) for layer in cache.layers]
    for layer in many.layers:
        if layer.get_seq_length() > 0:
            layer.keys = layer.keys.expand(rows, -1, -1, -1)
            layer.values = layer.values.expand(rows, -1, -1, -1)
        if isinstance(layer, GrowingLayer):
            layer.forget_buffers()
    return many
