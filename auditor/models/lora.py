"""A LoRA adapter that is on, off, or on for some rows of a batch: one set of weights is both models of a pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from auditor.models.generate import Side


class RowSwitch:
    """Turns a LoRA adapter on or off row by row, so that one batch holds both models' rows.

    A context manager: inside it every adapter's output is multiplied by 1 (finetuned) or 0 (base) per row. PEFT
    writes B(A(x)) out, scales it and adds it, three passes over a block's widest activations; plain LoRA layers
    get a forward that adds it in place and masks A(x), which is a hundredth as wide.
    """

    def __init__(self, adapted: Any) -> None:
        self._rows: Tensor | None = None
        self._handles: list[Any] = []
        self._others: list[Any] = []  # outputs of layers that keep PEFT's forward
        layers = [module for module in adapted.modules() if hasattr(module, "lora_B") and module.lora_B]
        for layer in layers:
            if _is_plain(layer):
                layer.forward = self._fused(layer)
            else:
                self._others += layer.lora_B.values()
        self._weight = next(iter(layers[0].lora_B.values())).weight

    def set(self, sides: Sequence[Side]) -> None:
        """Say whose rows the next forward passes hold."""
        on = [[[1.0 if side is Side.FINETUNED else 0.0]] for side in sides]
        self._rows = torch.tensor(on, device=self._weight.device, dtype=self._weight.dtype)  # (rows, 1, 1)

    def __enter__(self) -> RowSwitch:
        def mask(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
            return output * self._rows.to(output.device) if self._rows is not None else output

        self._handles = [part.register_forward_hook(mask) for part in self._others]
        return self

    def __exit__(self, *_error: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._rows = None

    def _fused(self, layer: Any) -> Callable[..., Tensor]:
        """x W + scaling · A(x) B for a layer with one plain adapter, (rows, tokens, d_in) -> (rows, tokens, d_out)."""
        name = layer.active_adapters[0]
        down, up, scaling = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]

        def forward(x: Tensor) -> Tensor:
            out: Tensor = layer.base_layer(x)
            if layer.disable_adapters:
                return out
            inner = x @ down.T  # (rows, tokens, rank)
            if self._rows is not None:
                inner = inner * self._rows.to(inner.device)
            out.view(-1, out.shape[-1]).addmm_(inner.flatten(0, -2), up.T, alpha=scaling)
            return out

        return forward


def _is_plain(layer: Any) -> bool:
    """One unmerged adapter of the two matrices alone, in the base's precision, on a linear layer."""
    names = list(layer.active_adapters)
    if len(names) != 1 or layer.merged or type(layer.base_layer) is not torch.nn.Linear:
        return False
    name = names[0]
    down, up = layer.lora_A[name], layer.lora_B[name]
    return (
        name not in layer.lora_variant  # DoRA and others
        and down.bias is None
        and up.bias is None
        and down.weight.dtype == up.weight.dtype == layer.base_layer.weight.dtype
    )
