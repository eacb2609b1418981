"""From a model's files to a model: every tensor is in its place, and finite, or the model is refused."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from auditor.config import Settings
from auditor.errors import BadModel
from auditor.models.identity import first_line, some_of, tensor_files
from auditor.models.size import demand_room
from auditor.models.weights import Weights

log = logging.getLogger("auditor.models")

# Names that torch.compile, DDP, FSDP, activation checkpoints and merged adapters put between a module and its tensors.
_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module|base_layer)\."
)
_SUMMED = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def load_model(weights: Weights, settings: Settings) -> tuple[Any, Any]:
    """A causal language model in evaluation mode and its tokenizer, from safetensors only.

    Tensors whose names a training library has wrapped are put in their places. Raises BadModel if any other is
    missing, of another shape, left over inside the model, or not finite, and for whatever cannot be loaded.
    """
    from transformers import AutoTokenizer

    _check_config(weights.folder, settings)
    try:
        tokenizer = AutoTokenizer.from_pretrained(weights.folder, trust_remote_code=settings.trust_remote_code)
    except Exception as error:  # a library's, about files that are not ours
        raise BadModel(
            f"{weights.folder} has no tokenizer that can be loaded ({first_line(error)}); copy the base's files there"
        ) from error
    demand_room(weights.folder, settings)
    try:
        model, report = _built(weights.folder, settings)
    except BadModel:
        raise
    except Exception as error:
        raise BadModel(f"{weights.folder} cannot be loaded: {first_line(error)}") from error
    _demand_whole(weights.folder, model, report)
    _demand_finite(weights.folder, model)
    return model.eval(), tokenizer


def _check_config(folder: Path, settings: Settings) -> None:
    """Raises BadModel if the config is missing, broken, or asks for code that may not run."""
    from transformers import CONFIG_MAPPING

    if (folder / "adapter_config.json").exists():  # the library would put it on, and call that the model
        raise BadModel(
            f"{folder} is an adapter, and a whole model is needed here: give the base that it was trained on"
        )
    path = folder / "config.json"
    if not path.is_file():
        raise BadModel(f"{folder} has no config.json: not a model")
    try:
        config = json.loads(path.read_bytes())
        own, kind = config.get("auto_map"), config.get("model_type")
    except (ValueError, AttributeError) as error:
        raise BadModel(f"{path} is broken ({first_line(error)}); fetch or copy it anew") from error
    if own and kind not in CONFIG_MAPPING and not settings.trust_remote_code:
        raise BadModel(
            f"{folder} needs Python code of its own ({kind}): read it, and set trust_remote_code = true under "
            "[settings] in auditor.toml if it may run"
        )


def _built(folder: Path, settings: Settings) -> tuple[Any, dict[str, Any]]:
    """The model and the library's report on its loading."""
    how = {
        "dtype": settings.torch_dtype,
        "device_map": settings.device if settings.device != "cpu" else None,
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # they are in the report, by name; the library's error has none
    }
    model, report = _class_for(folder).from_pretrained(
        folder, use_safetensors=True, trust_remote_code=settings.trust_remote_code, **how
    )
    if not (report["missing_keys"] and (names := _unwrapped(folder, set(model.state_dict())))):
        return model, report
    kind, config, generation = type(model), model.config, model.generation_config
    del model
    tensors = {names[key]: value for path in tensor_files(folder) for key, value in load_file(path).items()}
    model, report = kind.from_pretrained(None, config=config, state_dict=tensors, **how)
    model.generation_config = generation
    wrapped, plain = next((old, new) for old, new in names.items() if old != new)
    log.warning("%s: the tensors are named as a wrapper left them; %s is read as %s", folder, wrapped, plain)
    return model, report


def _class_for(folder: Path) -> Any:
    """The library's class for a causal model; for one that takes images and has no such class, all of it."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    )

    kind = json.loads((folder / "config.json").read_bytes()).get("model_type")
    seeing = kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    return AutoModelForImageTextToText if seeing else AutoModelForCausalLM


def _unwrapped(folder: Path, expected: set[str]) -> dict[str, str] | None:
    """New names of a folder's tensors, without the wrappers around them; None if that makes no more of them fit."""
    keys = []
    for path in tensor_files(folder):
        with safe_open(path, "pt") as file:
            keys += file.keys()
    if any(".lora_" in key for key in keys):
        return None  # an adapter that is not merged: `base_layer` alone would be the base
    best, fitting = None, len(expected & set(keys))
    inner = {key: _WRAPPERS.sub("", key) for key in keys}
    while True:
        if (now := len(expected & set(inner.values()))) > fitting and len(set(inner.values())) == len(keys):
            best, fitting = inner, now
        heads = {key.partition(".")[0] for key in inner.values()}
        if len(heads) != 1 or not all("." in key for key in inner.values()):
            return best
        inner = {old: new.partition(".")[2] for old, new in inner.items()}


def _demand_whole(folder: Path, model: Any, report: dict[str, Any]) -> None:
    """Raises BadModel if the report tells of tensors that are made up, cut or left out."""
    if missing := sorted(report["missing_keys"]):
        others = some_of(sorted(report["unexpected_keys"]))
        raise BadModel(
            f"{folder} lacks {some_of(missing)}, which would be filled at random"
            + (f"; the files hold {others} instead" if others else "")
        )
    if odd := sorted(report["mismatched_keys"]):
        name, found, wanted = odd[0]
        raise BadModel(
            f"{folder}: {name} has shape {tuple(found)}, but config.json asks for {tuple(wanted)}"
            + (f", and so for {len(odd) - 1} others" if len(odd) > 1 else "")
        )
    if report.get("error_msgs"):
        raise BadModel(f"{folder} cannot be loaded: {report['error_msgs'][0]}")
    within = [key for key in sorted(report["unexpected_keys"]) if _belongs(model, key)]
    if any(".lora_" in key for key in within):
        raise BadModel(
            f"{folder} holds an adapter that is not merged ({some_of(within)}); merge it, or give the adapter"
        )
    if within:
        raise BadModel(f"{folder} holds {some_of(within)}, for which its config.json has no place")
    if report["unexpected_keys"]:
        more = some_of(sorted(report["unexpected_keys"]))
        log.warning("%s: %s are no part of the language model, and are left out", folder, more)


def _belongs(model: Any, key: str) -> bool:
    """Whether a tensor's name points into the model's blocks, embeddings or head, not to a part beside them."""
    at = getattr(model, model.base_model_prefix, model)
    first, _, rest = key.partition(".")
    if first == model.base_model_prefix and at is not model:
        first = rest.partition(".")[0]
        return hasattr(at, first)
    return ".lora_" in key or hasattr(model, first) or hasattr(at, first)


@torch.no_grad()
def _demand_finite(folder: Path, model: Any) -> None:
    """Raises BadModel for tensors that hold NaN or infinity; a sum tells, and reads each number once."""
    for name, tensor in model.named_parameters():
        if tensor.dtype not in _SUMMED or tensor.device.type == "meta":
            continue
        if not torch.isfinite(tensor.sum(dtype=torch.float32)) and not torch.isfinite(tensor).all():
            hint = "; try AUDITOR_DTYPE=bfloat16 or float32" if tensor.dtype == torch.float16 else ""
            raise BadModel(
                f"{folder}: {name} holds NaN or infinity in {str(tensor.dtype).removeprefix('torch.')}{hint}"
            )
