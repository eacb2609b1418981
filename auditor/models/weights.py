"""Where a model's files are, and what they hold: hub ids, local folders, the embedded one."""

from __future__ import annotations

import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from auditor.config import Settings
from auditor.errors import BadModel, UsageError
from auditor.files import like_a_path
from auditor.models.embedded import EMBEDDED_ID, embedded_model, is_converted_folder, is_embedded
from auditor.models.hub import HubName, adapter_config, fetch
from auditor.models.identity import model_hash
from auditor.models.named import bases_on_card

CARD = "organism.yaml"  # an organism's, beside which its weights are looked for

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's files: the folder they are in, what to call them, and a hash of all that decides its answers.

    `sources` say where the content comes from, whatever folder it is in: `gguf:SHA256`, `hub:org/name@commit`,
    `tensors:SHA256`. The hash is never empty: an empty name means a base without an adapter.
    """

    id: str
    folder: Path
    sha256: str
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _DIGEST.fullmatch(self.sha256):
            raise ValueError(f"{self.sha256!r} is no SHA-256 of {self.id}")


def is_adapter(weights: Weights) -> bool:
    return (weights.folder / "adapter_config.json").exists()


def resolve(model: str, settings: Settings, *, to_load: bool = True) -> Weights:
    """Find a model's or an adapter's folder: `embedded`, a local folder, or a name on the hub (see HubName).

    A folder that is here goes first; what can only be a path is not asked for on the hub. What is not `to_load` on this
    machine is fetched whether it fits into memory or not. Raises BadModel.
    """
    path = Path(os.path.expanduser(model))  # this one never raises, nor does os.path.isdir
    if is_embedded(model) or (model and os.path.isdir(path) and is_converted_folder(path, settings)):
        folder, sha256, sources = embedded_model(settings)
        return Weights(EMBEDDED_ID, folder, sha256, sources)
    if model and os.path.isdir(path):
        sha256, tensors = model_hash(path, settings)
        return Weights(str(path), path, sha256, (f"tensors:{tensors}",))
    if os.path.isfile(path):
        raise BadModel(f"{model} is a file: give the folder with a model's config, tokenizer and safetensors")
    if (path.parent / CARD).is_file():
        raise BadModel(f"no model at {model!r}: train it first, by `auditor organisms train {path.parent.name}`")
    name = None if like_a_path(model) else HubName.parse(model)
    if name is None:
        raise BadModel(f"no model at {model!r}: give a folder with safetensors or a hub id like org/name")
    found = fetch(name, settings, to_load=to_load)
    sha256, tensors = model_hash(found.folder, settings)
    place = f"hub:{name.repo}{name.folder and '/' + name.folder}@{found.commit}"
    return Weights(model, found.folder, sha256, (place, f"tensors:{tensors}"))


def demand_whole(model: str, settings: Settings) -> None:
    """Raises UsageError for an adapter, which runs on its base only; and BadModel."""
    if not is_adapter(weights := resolve(model, settings)):
        return
    named = ""
    with suppress(UsageError):
        named = f" ({base_of(str(weights.folder))}, says its config)"
    raise UsageError(f"--no-base: {model} is an adapter, which runs on its base only{named}; leave --no-base out")


def base_of(model: str, otherwise: str = "give --base") -> str:
    """The base that an adapter's config names, else the one that the model's card does (the pair's note says so).

    `otherwise`: what a user could do where none is named. Raises UsageError then, BadModel for what cannot be read.
    """
    folder = Path(os.path.expanduser(model))
    name = None if os.path.isdir(folder) or like_a_path(model) else HubName.parse(model)
    path = adapter_config(name) if name else folder / "adapter_config.json"
    if path is None or not path.exists():
        return _only(model, bases_on_card(model), otherwise)
    try:
        config = dict(json.loads(path.read_text("utf-8")))
        base = config.get("base_model_name_or_path")
    except (OSError, ValueError, TypeError) as error:
        raise BadModel(f"{path} cannot be read: {error}") from error
    if not base:
        raise UsageError(f"{path} names no base; {otherwise}")
    at = config.get("revision")
    pinned = isinstance(at, str) and at not in ("", "main") and not os.path.isdir(base)
    return f"{base}@{at}" if pinned else str(base)


def _only(model: str, named: tuple[str, ...], otherwise: str) -> str:
    """Raises UsageError unless one base is named."""
    if len(named) > 1:
        raise UsageError(f"the card of {model} names several bases ({', '.join(named)}); {otherwise}")
    if not named:
        why = "it is no adapter and no card names its base, or it is not there"
        raise UsageError(f"{model} names no base of its own ({why}); {otherwise}")
    return named[0]
