"""A pair made of a model that is being trained, as it is now: the same weights with the adapter off and on.

Nothing is loaded a second time, and the model is left as it was. Where an adapter cannot be switched off (a whole
finetune, or more than plain LoRA), a base that is loaded beside it takes its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import torch
from safetensors import safe_open
from torch import Tensor

from auditor.config import Settings
from auditor.errors import BadModel, UsageError
from auditor.models.adapters import Adapter, plain_matrices
from auditor.models.arch import decoder_of
from auditor.models.engine import HookEngine
from auditor.models.generate import Side
from auditor.models.host import Host, Variant
from auditor.models.identity import tensor_files
from auditor.models.load import load_host
from auditor.models.local import LocalPair
from auditor.models.tokens import foreign_tokens
from auditor.models.weights import Weights, resolve
from auditor.models.worker import Worker

NAME, NOW = "the model in training", "now"

Base = tuple[Weights, Host]


def load_base(base: str, settings: Settings) -> Base:
    """A base beside the model that is trained. Raises BadModel."""
    weights = resolve(base, settings)
    return weights, load_host(weights, settings, Worker())


def adapter_of(model: Any) -> Adapter | None:
    """The plain LoRA adapter that is on `model`, as it is now; None for anything else."""
    from peft import PeftModel, get_peft_model_state_dict
    from peft.tuners.lora.layer import LoraLayer

    if not isinstance(model, PeftModel) or len(model.active_adapters) != 1:
        return None
    name = model.active_adapters[0]
    layers = {path: m for path, m in model.get_base_model().named_modules() if isinstance(m, LoraLayer)}
    if any(layer.merged for layer in layers.values()):
        return None
    tensors = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    found = plain_matrices(model.peft_config[name], {key: t.detach() for key, t in tensors.items()}, layers, name)
    if found is None or not found.matrices:
        return None
    inside = {f"{path}.base_layer": pair for path, pair in found.matrices.items()}  # what the adapter is wrapped around
    return Adapter({path: (down.clone(), up.clone()) for path, (down, up) in inside.items()}, found.rank)


@contextmanager
def pair_in_training(
    model: Any, tokenizer: Any, settings: Settings, *, base: Base | None = None
) -> Iterator[LocalPair]:
    """The pair of `model` as it is now and its base, which is `base` if that is given, else itself without its adapter.

    Inside, the model is in evaluation mode; afterwards it is as it was before. No two pairs have one fingerprint: the
    weights go on. Raises UsageError if it has no base.
    """
    modes = {module: module.training for module in model.modules()}
    wanted = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval()
    try:
        with _beside(model, tokenizer, base) if base is not None else _switched(model, tokenizer, settings) as pair:
            yield pair
    finally:
        for module, mode in modes.items():
            module.training = mode
        for parameter, grad in wanted.items():
            parameter.requires_grad_(grad)


@contextmanager
def _switched(model: Any, tokenizer: Any, settings: Settings) -> Iterator[LocalPair]:
    """PEFT's adapter off, a copy of it on the bank: rows of both models then share each pass."""
    if (adapter := adapter_of(model)) is None:
        raise UsageError(
            f"{type(model).__name__} has no plain LoRA adapter that could be switched off: give the gate its base "
            "(`base=`), which is loaded beside it"
        )
    inner = model.get_base_model()
    sources, note = _sources(inner, settings)
    with model.disable_adapter():
        host = Host(HookEngine(decoder_of(inner)), tokenizer, Worker())
        try:
            if not host.bank.takes(adapter):
                raise UsageError(
                    "the adapter is on layers that are no plain linear ones (quantized, or experts): give the gate "
                    "its base (`base=`), or gate the saved adapter with `auditor gate`"
                )
            host.worker.call(lambda: host.bank.add(NOW, adapter))
            yield LocalPair(
                name=NAME, fingerprint=f"training-{uuid4().hex}", tokenizer=tokenizer,
                models={Side.BASE: Variant(host), Side.FINETUNED: Variant(host, NOW)}, base_sources=sources, note=note,
            )  # fmt: skip
        finally:
            host.close()


@contextmanager
def _beside(model: Any, tokenizer: Any, base: Base) -> Iterator[LocalPair]:
    """The model as it is, adapter and all, beside a base of its own weights. Raises BadModel if they do not fit."""
    weights, home = base
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if getattr(inner, "is_quantized", False):
        raise UsageError("a quantized model differs from its base everywhere: gate the saved adapter (`auditor gate`)")
    ours, decoder = home.engine.decoder, decoder_of(inner)
    if (ours.d_model, ours.n_layers) != (decoder.d_model, decoder.n_layers):
        raise BadModel(f"{NAME} and {weights.id} differ in width or depth: not base and finetune")
    host = Host(HookEngine(decoder), tokenizer, home.worker)
    try:
        yield LocalPair(
            name=NAME, fingerprint=f"training-{uuid4().hex}", tokenizer=tokenizer,
            models={Side.BASE: Variant(home), Side.FINETUNED: Variant(host)}, base_sources=weights.sources,
            foreign=foreign_tokens(home.tokenizer, tokenizer, f"{NAME} and {weights.id}"),
        )  # fmt: skip
    finally:
        host.close()


def _sources(inner: Any, settings: Settings) -> tuple[tuple[str, ...], str]:
    """Where the base's content comes from, and what a user should know of that. Raises UsageError if memory holds
    other weights than the place that the model was loaded from.
    """
    name = str(getattr(inner.config, "_name_or_path", "") or "")
    try:
        weights = resolve(name, settings)
        files = tensor_files(weights.folder)
    except (BadModel, UsageError):
        return (), f"nobody knows which base this is ({name or 'it has no name'}): no finetunes to hold it against"
    inside = {key.replace(".base_layer.", "."): tensor for key, tensor in inner.state_dict().items()}
    shared = 0
    for path in files:
        with safe_open(path, "pt") as file:
            for key in inside.keys() & file.keys():
                shared += 1
                if not _alike(file.get_slice(key), inside[key]):
                    raise UsageError(
                        f"the weights under the adapter are not those of {name} ({key} differs): give the gate its "
                        "base (`base=`), which is loaded beside it"
                    )
    return (weights.sources, "") if shared else ((), f"the tensors of {name} have other names: no nulls are used")


def _alike(stored: Any, tensor: Tensor) -> bool:
    """By shape and the row in the middle: whatever was trained or merged in before changed every row."""
    if tuple(stored.get_shape()) != tuple(tensor.shape):
        return False
    at = len(tensor) // 2 if tensor.dim() else 0
    row = stored[at : at + 1] if tensor.dim() else stored[...]
    return torch.equal(row.to(tensor.dtype), tensor[at : at + 1].cpu() if tensor.dim() else tensor.cpu())
