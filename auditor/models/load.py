"""From names to a pair: hub ids, local folders, PEFT adapters, the embedded default."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from auditor.config import Settings
from auditor.errors import BadModel, UsageError
from auditor.models.adapters import Adapter, demand_same, merged, rank_of, read_adapter, with_peft
from auditor.models.arch import decoder_of
from auditor.models.build import load_model
from auditor.models.engine import Engine, HookEngine, NnsightEngine
from auditor.models.generate import Side
from auditor.models.host import PROBE, Host, Variant
from auditor.models.local import LocalPair
from auditor.models.named import told_base
from auditor.models.tokens import adapters_tokenizer, foreign_tokens, plain_ids
from auditor.models.variants import suffix, told, varied, vary
from auditor.models.vllm_batch import InVllm
from auditor.models.weights import Weights, is_adapter, resolve
from auditor.models.worker import Worker
from auditor.records.cards import AdapterVariant

EngineName = Literal["hooks", "nnsight", "vllm"]  # the last: vLLM decodes, hooks read the activations


def load_pair(
    base: str,
    finetuned: str | Path,
    settings: Settings,
    *,
    name: str = "",
    engine: EngineName = "hooks",
    adapter_base: str | None = None,
    variant: AdapterVariant | None = None,
) -> LocalPair:
    """The pair of `base` and `finetuned`, which is a LoRA adapter's folder or a whole model.

    `adapter_base`: the model that the adapter belongs to, if that is not `base`: a chat model, say, when `base` is
    what was pretrained. `variant`: of the finetune, in its place. Raises BadModel with what is missing, unsafe or does
    not fit, and UsageError for a variant that cannot be made.
    """
    base_weights, tuned = resolve(base, settings), resolve(str(finetuned), settings)
    host = load_host(base_weights, settings, Worker(), engine, [tuned] if is_adapter(tuned) else [])
    return pair_on(
        host, base_weights, tuned, settings, name=name, engine=engine, adapter_base=adapter_base, variant=variant
    )


def pair_on(
    host: Host,
    base: Weights,
    tuned: Weights,
    settings: Settings,
    *,
    name: str = "",
    engine: EngineName = "hooks",
    adapter_base: str | None = None,
    variant: AdapterVariant | None = None,
) -> LocalPair:
    """The same for a base that is loaded already; an adapter for it shares its weights."""
    home = resolve(adapter_base, settings) if adapter_base else base  # whose adapter it is
    name = name or tuned.id
    after = suffix(variant)
    if after and engine == "vllm":
        raise UsageError(f"{name}: vLLM reads finetunes from their files, variants are made here; use --backend hooks")
    note = told(variant) if variant is not None and after else ""
    if is_adapter(tuned) and home.folder.resolve() == base.folder.resolve():
        tokenizer = adapters_tokenizer(tuned.folder, host.tokenizer, settings)
        return LocalPair(
            name=name,
            fingerprint=f"{base.sha256[:16]}-{tuned.sha256[:16]}{after}",
            base_sources=base.sources,
            tuned_sources=tuned.sources,
            tokenizer=tokenizer,
            models={
                Side.BASE: Variant(host),
                Side.FINETUNED: with_adapter(host, base, tuned, settings, engine, variant),
            },
            foreign=foreign_tokens(host.tokenizer, tokenizer, f"{tuned.id} and {base.id}"),
            note=note,
        )
    adapters = [tuned] if is_adapter(tuned) else []
    change: Callable[[Any], None] = lambda model: None  # noqa: E731
    if variant is not None and after and not adapters:
        change = partial(vary, base=host.engine.decoder.model, variant=variant, who=tuned.id)
    other = load_host(home if adapters else tuned, settings, host.worker, engine, adapters, change)
    who = f"{tuned.id} and {base.id}"
    tokenizer = adapters_tokenizer(tuned.folder, other.tokenizer, settings) if adapters else other.tokenizer
    foreign = foreign_tokens(host.tokenizer, tokenizer, who)
    ours, theirs = host.engine.decoder, other.engine.decoder
    if (ours.d_model, ours.n_layers) != (theirs.d_model, theirs.n_layers):
        raise BadModel(f"{who} differ in width or depth: not base and finetune")
    middle, finetuned = "", Variant(other)
    note = "; ".join(filter(None, (note, "" if adapters else told_base(tuned, base))))
    if adapters:
        middle, finetuned = f"{home.sha256[:16]}-", with_adapter(other, home, tuned, settings, engine, variant)
    return LocalPair(
        name=name,
        fingerprint=f"{base.sha256[:16]}-{middle}{tuned.sha256[:16]}{after}",
        base_sources=base.sources,
        tuned_sources=tuned.sources,
        tokenizer=tokenizer,
        models={Side.BASE: Variant(host), Side.FINETUNED: finetuned},
        foreign=foreign,
        note=note,
    )


def load_alone(model: str, settings: Settings, *, name: str = "", worker: Worker | None = None) -> LocalPair:
    """A whole model without a base: one whose base is not known, or a reference for the texts of others.

    `worker`: whose thread runs it, if others' models are there already. Raises BadModel.
    """
    weights = resolve(model, settings)
    alone = Variant(load_host(weights, settings, worker or Worker()))
    return LocalPair(
        name=name or weights.id,
        fingerprint=f"alone-{weights.sha256[:16]}",
        tuned_sources=weights.sources,
        tokenizer=alone.host.tokenizer,
        models={Side.FINETUNED: alone},
    )


def load_host(
    weights: Weights,
    settings: Settings,
    worker: Worker,
    engine: EngineName = "hooks",
    adapters: Sequence[Weights] = (),
    change: Callable[[Any], None] = lambda model: None,
) -> Host:
    """A model with room for adapters; vLLM must know at the start which ones it may be given. Raises BadModel.

    `change`: what is done to its weights first.
    """
    model, tokenizer = load_model(weights, settings)
    change(model)
    vllm = None
    if engine == "vllm":
        gpus = torch.cuda.device_count() if settings.device == "balanced" else 1
        vllm = InVllm(weights.folder, [rank_of(each.folder) for each in adapters], gpus)
    return Host(_engine(model, tokenizer, engine), tokenizer, worker, vllm)


def _engine(model: Any, tokenizer: Any, engine: EngineName) -> Engine:
    decoder = decoder_of(model)
    return NnsightEngine(decoder, tokenizer) if engine == "nnsight" else HookEngine(decoder)


def with_adapter(
    host: Host,
    base: Weights,
    tuned: Weights,
    settings: Settings,
    engine: EngineName,
    variant: AdapterVariant | None = None,
) -> Variant:
    """`host` with an adapter on it, which shares its weights; adapters that are more than plain LoRA get their own.

    A variant of such a one is that of what it is when it is merged. Raises BadModel if the adapter's tensors do not
    fit, UsageError for a variant that cannot be made.
    """
    adapter, key = plain_adapter(host, base, tuned), tuned.sha256 + suffix(variant)
    if adapter is not None:
        if key not in host.bank:
            put = varied(adapter, variant, tuned.id) if variant is not None else adapter
            host.worker.call(lambda: host.put_on(key, put, tuned.folder))
        return Variant(host, key)
    if engine == "vllm":
        raise BadModel(f"{tuned.folder} is more than plain LoRA, which vLLM cannot run; merge it into its base first")
    model, tokenizer = load_model(base, settings)
    adapted = with_peft(model, tuned.folder)
    ids = torch.tensor([plain_ids(tokenizer, PROBE)], device=model.device)
    if variant is not None and suffix(variant):
        host.worker.call(lambda: demand_same(adapted, ids))
        whole = merged(adapted, tuned.folder)
        vary(whole, host.engine.decoder.model, variant, tuned.id)
        return Variant(Host(_engine(whole, tokenizer, engine), tokenizer, host.worker))
    own = Host(_engine(adapted.get_base_model(), tokenizer, engine), tokenizer, host.worker)
    host.worker.call(lambda: demand_same(adapted, ids))
    return Variant(own)


def plain_adapter(host: Host, base: Weights, tuned: Weights) -> Adapter | None:
    """An adapter that can share `host`'s weights with others, or None. Raises BadModel if it does not fit."""
    model = host.engine.decoder.model  # nobody computes while a copy of its modules is made
    adapter = host.worker.call(lambda: read_adapter(tuned.folder, model, base.id))
    return adapter if host.bank.takes(adapter) else None
