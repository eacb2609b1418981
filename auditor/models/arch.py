"""Where the parts of a decoder are, whatever the architecture calls them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from auditor.errors import BadModel


@dataclass(frozen=True, slots=True)
class Decoder:
    """Handles to a causal language model's blocks and to what reads the last one's output."""

    model: nn.Module
    blocks: nn.ModuleList
    blocks_path: str  # dotted path of `blocks` inside `model`
    final_norm: nn.Module
    cache_name: str  # of `forward`'s parameter: `past_key_values` before transformers 5.24, and in others' code

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        return int(self.text_config.hidden_size)

    @property
    def text_config(self) -> Any:
        return _text_config(self.model)

    @property
    def takes_images(self) -> bool:
        """Whether there is a vision tower beside the language model."""
        return getattr(self.model.config, "vision_config", None) is not None

    def named(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """`inputs` as the model's `forward` names them."""
        return {self.cache_name if name == "cache" else name: value for name, value in inputs.items()}


def blocks_of(model: nn.Module, count: int) -> tuple[str, nn.ModuleList]:
    """Path and list of the decoder's blocks: the outermost ModuleList with one entry per layer, inside of the language
    model where there are others beside it. Raises BadModel.
    """
    inside = _language_model(model)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and name.startswith(inside)
    ]
    if not found:
        raise BadModel(f"{type(model).__name__} has no list of {count} decoder blocks")
    return min(found, key=lambda item: item[0].count("."))


def decoder_of(model: nn.Module) -> Decoder:
    """Find the decoder inside `model`. Raises BadModel if it has no list of blocks or no norm beside it."""
    path, blocks = blocks_of(model, _text_config(model).num_hidden_layers)
    parent = model.get_submodule(path.rpartition(".")[0])
    norms = [child for name, child in parent.named_children() if _is_norm(name, child)]
    if not norms:
        raise BadModel(f"{type(model).__name__} has no final norm beside its blocks")
    cache = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"
    return Decoder(model, blocks, path, norms[-1], cache)


def _text_config(model: Any) -> Any:
    return model.config.get_text_config() if hasattr(model.config, "get_text_config") else model.config


def _language_model(model: Any) -> str:
    """Path of the language model inside of one that takes images: a vision tower may have as many blocks."""
    if getattr(model.config, "vision_config", None) is None or not hasattr(model, "get_decoder"):
        return ""
    decoder = model.get_decoder()
    return next((name for name, module in model.named_modules() if module is decoder), "")


def _is_norm(name: str, child: Any) -> bool:
    """By its type, inside of what PEFT has wrapped around it, or by its name."""
    inner = getattr(child, "original_module", getattr(child, "base_layer", child))
    return "norm" in type(inner).__name__.lower() or "norm" in name.lower()
