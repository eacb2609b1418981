"""The pair that somebody means: one spelling for every command and for Python."""

from __future__ import annotations

import os
import re

from auditor.config import Settings
from auditor.errors import UnknownName, UsageError
from auditor.models.weights import base_of, demand_whole
from auditor.records.cards import AdapterVariant, Organism
from auditor.records.results import Target
from auditor.workspace import Workspace


def pair_named(
    ws: Workspace,
    conf: Settings,
    model: str,
    base: str | None = None,
    *,
    adapter_base: str | None = None,
    variant: AdapterVariant | None = None,
    otherwise: str = "give --base, or --no-base if nobody knows it",
) -> Target:
    """MODEL [--base B]: an organism (`gold`, `cake_bake@qwen3_1_7B`), an adapter or whole model (folder, hub id), or
    what the model server calls it. An organism's card or an adapter's config names the base that is not given;
    `otherwise`: what to do where nothing does.

    Raises UsageError if no base is known, or there is no such organism or folder; BadModel for a config that cannot be
    read.
    """
    if not model.strip():
        raise UsageError("the MODEL's name is empty: give an organism, a folder or a hub id")
    if conf.server is not None:
        from auditor.models.remote import base_on

        if base is not None:
            raise UsageError("--base with --server: the server knows what its pairs are made of; leave it out")
        return Target(name=model, base=base_on(conf.server, model), finetuned=model)
    if card := ws.organisms.get(model):
        own = base in (None, card.base)
        return Target(
            name=model, base=base or card.base, finetuned=card.finetuned, variant=variant or card.variant,
            adapter_base=adapter_base or (card.adapter_base if own else None),
        )  # fmt: skip
    if base is None:
        _demand_there(ws, model)
    base = base or base_of(model, otherwise)
    return Target(name=model, base=base, finetuned=model, adapter_base=adapter_base, variant=variant)


def alone(ws: Workspace, conf: Settings, model: str) -> Target:
    """The finetune of MODEL without its base: an organism's, a folder or a hub id. Raises UsageError, BadModel."""
    card = ws.organisms.get(model)
    finetuned = card.finetuned if card else model
    demand_whole(finetuned, conf)
    return Target(name=model, base=None, finetuned=finetuned)


def card_named(ws: Workspace, conf: Settings, model: str, base: str | None = None, about: str = "") -> Organism:
    """An organism's card (on another base if one is given), or one for a MODEL of somebody's own.

    `about`: what that was finetuned for, as far as known.

    Raises what `pair_named` does.
    """
    if card := ws.organisms.get(model):
        return card if base is None else card.model_copy(update={"base": base})
    target = pair_named(ws, conf, model, base)
    return Organism(
        name=plain_name(model), family="own", base=str(target.base), model=target.finetuned, description=about
    )


def plain_name(model: str) -> str:
    """The last part of a path or hub id, as a name."""
    return re.sub(r"[^\w-]+", "-", model.rstrip("/").rpartition("/")[2]).strip("-") or "model"


def _demand_there(ws: Workspace, model: str) -> None:
    """Raises UnknownName for a plain word that is no organism and no folder: an adapter's id on the hub has a slash."""
    if re.fullmatch(r"[\w@.:-]+", model) and not os.path.isdir(model):
        raise UnknownName("organism", model, ws.organisms.by_name(), "and there is no such folder")
