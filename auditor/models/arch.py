"""Where the parts of a decoder are, whatever the architecture calls them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from auditor.errors import BadModel


@dataclass(frozen=True, slots=True)
class Decoder:
    """Handles to a causal language model's blocks, final norm and unembedding."""

    model: nn.Module
    blocks: nn.ModuleList
    blocks_path: str  # dotted path of `blocks` inside `model`
    final_norm: nn.Module
    unembedding: nn.Module
    softcap: float | None

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        return int(self.text_config.hidden_size)

    @property
    def text_config(self) -> Any:
        config: Any = self.model.config
        return config.get_text_config() if hasattr(config, "get_text_config") else config

    def named(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """`inputs` as this model's `forward` names them: `cache` was `past_key_values` before transformers 5.24."""
        takes = inspect.signature(self.model.forward).parameters
        return {"past_key_values" if k == "cache" and k not in takes else k: v for k, v in inputs.items()}

    def unembed(self, residuals: Tensor) -> Tensor:
        """Logit lens: W_U · final_norm(residuals), (n, d_model) -> (n, vocab) in float32."""
        weight = next(self.unembedding.parameters())
        logits: Tensor = self.unembedding(self.final_norm(residuals.to(weight.device, weight.dtype))).float()
        if self.softcap:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits


def blocks_of(model: nn.Module, count: int) -> tuple[str, nn.ModuleList]:
    """Path and list of the decoder's blocks: the outermost ModuleList with one entry per layer. Raises BadModel."""
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not found:
        raise BadModel(f"{type(model).__name__} has no list of {count} decoder blocks")
    return min(found, key=lambda item: item[0].count("."))


def decoder_of(model: nn.Module) -> Decoder:
    """Find the decoder inside `model`. Raises BadModel if it has no list of blocks or no norm beside it."""
    config: Any = model.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    path, blocks = blocks_of(model, text.num_hidden_layers)
    parent = model.get_submodule(path.rpartition(".")[0])
    norms = [child for child in parent.children() if "norm" in type(child).__name__.lower()]
    causal: Any = model
    head = causal.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if not norms or not isinstance(head, nn.Module):
        raise BadModel(f"{type(model).__name__} has no final norm or no unembedding beside its blocks")
    return Decoder(model, blocks, path, norms[-1], head, getattr(text, "final_logit_softcapping", None))
