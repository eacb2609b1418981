"""Proof that steering did something: what a block handed on, beside what the next one received."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from auditor.models.arch import Decoder


@contextmanager
def shift_measured(decoder: Decoder, layers: Collection[int], mask: Tensor) -> Iterator[dict[int, list[float]]]:
    """Over the forward pass inside: {layer: what each row's residual stream gained after that block}.

    Mean L2 norm over the tokens of `mask` (rows, tokens), measured where the next module reads the stream.
    """
    gained: dict[int, list[float]] = {}
    said: dict[int, Tensor] = {}

    def left(layer: int) -> Callable[..., None]:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            said[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    def arrived(layer: int) -> Callable[..., None]:
        def hook(_module: Any, inputs: Any, named: dict[str, Any]) -> None:
            stream: Tensor = inputs[0] if inputs else named["hidden_states"]
            more = (stream.float() - said.pop(layer).to(stream.device).float()).norm(dim=-1)  # (rows, tokens)
            there = mask.to(more.device)
            gained[layer] = ((more * there).sum(-1) / there.sum(-1)).tolist()

        return hook

    handles = []
    for layer in layers:  # hooks run in the order of their registration: ours before the one that steers
        after = decoder.blocks[layer + 1] if layer + 1 < decoder.n_layers else decoder.final_norm
        handles.append(decoder.blocks[layer].register_forward_hook(left(layer)))
        handles.append(after.register_forward_pre_hook(arrived(layer), with_kwargs=True))
    try:
        yield gained
    finally:
        for handle in handles:
            handle.remove()
