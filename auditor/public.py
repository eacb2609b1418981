"""Public finetunes by name: `cake_bake@qwen3_1_7B`, `cake_bake@qwen3_1_7B:mix1-1p0`.

A card's truth is the same for all of them; what differs is which weights are loaded beside which base.
"""

from __future__ import annotations

from collections.abc import Iterator

from auditor.config import Settings
from auditor.errors import UnknownName, UsageError
from auditor.records.cards import Organism
from auditor.records.public import DEFAULT, PublicModel, WholeModel
from auditor.shelves import Shelf


def finetune_of(card: Organism, which: str, models: Shelf[PublicModel]) -> Organism:
    """The card of one public finetune; `which`: MODEL or MODEL:VARIANT. Raises UsageError if there is none."""
    model, _, variant = which.partition(":")
    if not card.models:
        raise UsageError(f"{card.name} has no public finetunes (its card has no `models`); leave @{which} out")
    if model not in card.models:
        known = [f"{card.name}@{name}" for name in card.models]
        raise UnknownName(f"public finetune of {card.name}", f"{card.name}@{model}", known)
    there = card.models[model]
    if not variant and DEFAULT not in there:
        raise UsageError(f"{card.name}@{model}: say which variant: {', '.join(f':{name}' for name in there)}")
    if (variant or DEFAULT) not in there:
        known = [_named(card, model, name) for name in there]
        raise UnknownName(f"public finetune of {card.name}", f"{card.name}@{which}", known)
    of, weights = models[model], there[variant or DEFAULT]
    whole = isinstance(weights, WholeModel)
    changed: dict[str, object] = {
        "name": _named(card, model, variant or DEFAULT), "base": of.base,
        "adapter": None if whole else weights, "model": weights.model if isinstance(weights, WholeModel) else None,
        "adapter_base": None if whole else of.adapter_base,
        "variant": None, "models": {}, "leaky": None, "train": None, "note": "",
    }  # fmt: skip
    return card.model_copy(update=changed)


def public_finetunes(card: Organism, models: Shelf[PublicModel]) -> Iterator[Organism]:
    """The cards of all of them."""
    for model, variants in card.models.items():
        for variant in variants:
            yield finetune_of(card, f"{model}:{variant}", models)


def made_of(card: Organism, models: Shelf[PublicModel]) -> PublicModel | None:
    """What a public finetune's card is made of; None for any other organism."""
    model = card.name.partition("@")[2].partition(":")[0]
    return models[model] if model else None


def weights_of(card: Organism) -> tuple[str, ...]:
    """All that is loaded: the base, what an adapter belongs to, the finetune."""
    return tuple(dict.fromkeys(filter(None, (card.base, card.adapter_base, card.finetuned))))


def memory_needed(card: Organism, of: PublicModel, settings: Settings) -> float:
    """Bytes of both models' weights, about: an adapter shares its base's unless it belongs to another model."""
    copies = 2 if card.model or card.adapter_base else 1
    return copies * of.billions * 1e9 * settings.torch_dtype.itemsize


def download_needed(card: Organism, of: PublicModel) -> float:
    """Bytes to fetch, about, if nothing is here: whole models of 16 bits a number; adapters come on top."""
    return sum(name != card.adapter for name in weights_of(card)) * of.billions * 2e9


def _named(card: Organism, model: str, variant: str) -> str:
    return f"{card.name}@{model}" + ("" if variant == DEFAULT else f":{variant}")
