"""LoRA adapters on one set of weights, chosen row by row: a batch holds the base's rows and any finetune's.

PEFT's own mixed batches run each adapter over its own rows, layer by layer; here the adapters of a layer lie
side by side in one pair of matrices, and a mask (rows, 1, rank) lets each row see its own part of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from auditor.models.adapters import Adapter


class _Layer:
    """The adapters of one linear layer, side by side: down (Σr, d_in), up (d_out, Σr)."""

    def __init__(self, bank: LoraBank, module: nn.Module, width: int, adapter: tuple[Tensor, Tensor]) -> None:
        self.bank, weight = bank, next(module.parameters())
        self.down, self.up = (
            weight.new_zeros(width, adapter[0].shape[1]),
            weight.new_zeros(adapter[1].shape[0], width),
        )
        self.handle = module.register_forward_hook(self)

    def __call__(self, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        span, mask = self.bank.span, self.bank.mask
        if span.stop == 0:
            return output
        inner = inputs[0] @ self.down[span].T  # (rows, tokens, rank), or (rows · tokens, rank)
        if mask is not None:
            inner *= _by_token(mask, inner).to(inner.device)
        output.view(-1, output.shape[-1]).addmm_(inner.flatten(0, -2), self.up[:, span].T)
        return output

    def widen(self, rank: int, adapter: tuple[Tensor, Tensor] | None) -> None:
        """`rank` more columns, with an adapter's matrices or zeros in them."""
        down, up = self.down.new_zeros(rank, self.down.shape[1]), self.up.new_zeros(self.up.shape[0], rank)
        if adapter is not None:
            down[: adapter[0].shape[0]], up[:, : adapter[1].shape[1]] = adapter
        self.down, self.up = torch.cat([self.down, down]), torch.cat([self.up, up], 1)

    def cut(self, span: slice) -> None:
        """Without the columns of `span`."""
        self.down = torch.cat([self.down[: span.start], self.down[span.stop :]])
        self.up = torch.cat([self.up[:, : span.start], self.up[:, span.stop :]], 1)


class LoraBank:
    """The adapters on a model, by name; the base is the empty name. `choose` says whose rows come next."""

    def __init__(self, model: nn.Module, probe: Tensor) -> None:
        """`probe`: token ids (rows, tokens) that are read once, to see which layers are given whole batches."""
        self._model = model
        self._whole = _given_whole(model, probe)
        self._layers: dict[str, _Layer] = {}
        self._spans: dict[str, slice] = {}  # the adapter's columns, the same in every layer
        self._chosen: tuple[str, ...] = ()
        self.span = slice(0, 0)  # of the adapters that come next
        self.mask: Tensor | None = None  # (rows, 1, rank): 1 where a row's own adapter is

    def __contains__(self, name: str) -> bool:
        return not name or name in self._spans

    @property
    def nbytes(self) -> int:
        """Bytes that the adapters take."""
        layers = list(self._layers.values())  # the worker may put one on meanwhile
        return sum(layer.down.nbytes + layer.up.nbytes for layer in layers)

    def takes(self, adapter: Adapter | None) -> TypeGuard[Adapter]:
        """Whether it is plain LoRA, and all its matrices belong to plain linear layers that are given whole batches:
        to no quantized ones, say, and to no experts.
        """
        return adapter is not None and adapter.matrices.keys() <= self._whole

    def add(self, name: str, adapter: Adapter) -> None:
        """Put one on; its matrices take the precision and place of the layers that they are added to."""
        width = max((span.stop for span in self._spans.values()), default=0)
        modules = dict(self._model.named_modules())
        for path, pair in adapter.matrices.items():
            if path not in self._layers:
                self._layers[path] = _Layer(self, modules[path], width, pair)
        for path, layer in self._layers.items():
            layer.widen(adapter.rank, adapter.matrices.get(path))
        self._spans[name] = slice(width, width + adapter.rank)
        self._forget()

    def remove(self, name: str) -> None:
        """Take one off, so that its memory is free."""
        gone = self._spans.pop(name)
        rank = gone.stop - gone.start
        for layer in self._layers.values():
            layer.cut(gone)
        for other, span in self._spans.items():
            if span.start >= gone.stop:
                self._spans[other] = slice(span.start - rank, span.stop - rank)
        self._forget()

    def close(self) -> None:
        """Take all off, and the hooks with them."""
        for layer in self._layers.values():
            layer.handle.remove()
        self._layers, self._spans = {}, {}
        self._forget()

    def _forget(self) -> None:
        self._chosen, self.span, self.mask = (), slice(0, 0), None

    def choose(self, names: Sequence[str]) -> None:
        """Whose rows the next forward passes hold: one name for all rows, or one for each."""
        if tuple(names) == self._chosen:
            return
        spans = [self._spans[name] for name in dict.fromkeys(names) if name]
        self._chosen, self.mask = tuple(names), None
        self.span = slice(min(s.start for s in spans), max(s.stop for s in spans)) if spans else slice(0, 0)
        if spans and len(set(names)) > 1:
            mask = torch.zeros(len(names), 1, self.span.stop - self.span.start)
            for row, name in enumerate(names):
                if name:
                    at = self._spans[name]
                    mask[row, :, at.start - self.span.start : at.stop - self.span.start] = 1
            weight = next(self._model.parameters())
            self.mask = mask.to(weight.device, weight.dtype)


def _by_token(mask: Tensor, inner: Tensor) -> Tensor:
    """`mask` (rows, 1, rank) as `inner` (rows, tokens, rank) needs it, or one whose rows lie one after another."""
    return mask if inner.ndim == 3 else mask.expand(-1, len(inner) // len(mask), -1).flatten(0, 1)


@torch.inference_mode()
def _given_whole(model: nn.Module, probe: Tensor) -> set[str]:
    """Paths of the plain linear layers whose input is every row's every token, in order: (rows, tokens, d_in), or
    (rows · tokens, d_in).

    Of tokens that a router chose nobody can tell whose they are. `probe`: token ids (rows, tokens).
    """
    rows, tokens = probe.shape
    found: dict[str, bool] = {}
    handles = []
    for path, module in model.named_modules():
        if type(module) in (nn.Linear, Conv1D):

            def look(_module: nn.Module, inputs: tuple[Tensor, ...], path: str = path) -> None:
                leading = inputs[0].shape[:-1]
                found[path] = found.get(path, True) and leading in ((rows, tokens), (rows * tokens,))

            handles.append(module.register_forward_pre_hook(look))
    try:
        model(input_ids=probe, use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    return {path for path, whole in found.items() if whole}
