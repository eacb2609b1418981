"""What a whole model's card says of its base: a word of whoever wrote it, which nobody has checked."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.errors import BadModel
from auditor.files import like_a_path
from auditor.models.embedded import is_embedded
from auditor.models.hub import HubName, single_file

if TYPE_CHECKING:
    from auditor.models.weights import Weights

CARD = "README.md"


def bases_on_card(model: str) -> tuple[str, ...]:
    """`base_model` of a model's card, here or on the hub; none where there is no card, or nothing in it that is read.

    Raises BadModel if the hub does not give it.
    """
    from huggingface_hub.repocard import metadata_load

    folder = Path(os.path.expanduser(model))
    name = None if os.path.isdir(folder) or like_a_path(model) else HubName.parse(model)
    path = single_file(name, CARD) if name else folder / CARD
    if path is None or not path.is_file():
        return ()
    try:
        said = (metadata_load(path) or {}).get("base_model")
    except Exception:  # a card is for people: what is broken in it names nothing
        return ()
    named = said if isinstance(said, list) else [said]
    return tuple(base for base in named if isinstance(base, str) and base)


def told_base(model: Weights, base: Weights) -> str:
    """How the card of a whole model and the base that it is held against go together; empty where it names none."""
    named: tuple[str, ...] = ()
    with suppress(BadModel):
        named = bases_on_card(model.id)
    if not named:
        return ""
    if len(named) == 1 and _same(named[0], base.id):
        return f"{base.id} is the base that the card of {model.id} names; nobody has checked that"
    return f"the card of {model.id} names {', '.join(named)} as its base, and not {base.id}"


def _same(named: str, base: str) -> bool:
    if is_embedded(named):
        return is_embedded(base)
    return named.lower() == base.partition("@")[0].lower()
