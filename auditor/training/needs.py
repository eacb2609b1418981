"""Whether the memory suffices for a training, told before it begins."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from auditor.config import Settings
from auditor.errors import BadModel, UsageError
from auditor.models.identity import first_line
from auditor.models.size import free_bytes, parameters_of
from auditor.records.cards import Method, Recipe
from auditor.training.course import TOKENS_AT_ONCE

FULL_BYTES = 16  # a parameter's float32 weight, gradient and two moments
KEPT = 24  # numbers that a block keeps for a token, in widths of its residual stream


def demand_memory(folder: Path, recipe: Recipe, settings: Settings) -> None:
    """Raises UsageError if training needs more than is free, with the two numbers and what needs less; and BadModel."""
    needed, free = needed_bytes(folder, recipe, settings), free_bytes(settings)
    if needed <= free:
        return
    less = "" if recipe.method == Method.LORA else "; `method: lora` needs far less"
    raise UsageError(
        f"training {folder.name} by {recipe.method} needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
        f"free on {settings.device}{less or '; fewer `max_tokens`, or `dtype: bfloat16`, need less'}"
    )


def demand_context(folder: Path, recipe: Recipe) -> None:
    """Raises UsageError for documents longer than what the model reads at once."""
    most = _number(_config(folder), "max_position_embeddings")
    if most and recipe.max_tokens > most:
        raise UsageError(f"`max_tokens: {recipe.max_tokens}`, and {folder.name} reads {most} at once; give fewer")


def needed_bytes(folder: Path, recipe: Recipe, settings: Settings) -> int:
    """Weights, what the optimizer keeps, and the activations and logits of the tokens that are in memory together."""
    config, parameters = _config(folder), parameters_of(folder)
    width, layers, vocab = (_number(config, key) for key in ("hidden_size", "num_hidden_layers", "vocab_size"))
    size = settings.torch_dtype.itemsize
    tokens = max(recipe.max_tokens, TOKENS_AT_ONCE.get(settings.device.split(":")[0], TOKENS_AT_ONCE["cpu"]))
    alive = tokens * (KEPT * width * layers * size + 3 * vocab * 4)
    if recipe.method == Method.FULL:
        return parameters * FULL_BYTES + alive
    lora = 2 * recipe.rank * math.isqrt(7 * parameters * layers)  # seven square matrices in each block
    return parameters * size + lora * FULL_BYTES + alive


def _config(folder: Path) -> dict[str, Any]:
    """Of the language model. Raises BadModel for a folder that is no whole model."""
    path = folder / "config.json"
    if not path.exists():
        held = "an adapter" if (folder / "adapter_config.json").exists() else "no model (it has no config.json)"
        raise BadModel(f"{folder} is {held}; training begins from a whole model: give the base")
    try:
        config = json.loads(path.read_bytes())
        return dict(config.get("text_config") or config)
    except (ValueError, AttributeError, TypeError) as error:
        raise BadModel(f"{path} is broken ({first_line(error)}); fetch or copy it anew") from error


def _number(config: dict[str, Any], key: str) -> int:
    """Under the name that this kind of model has for it (`n_embd`, `n_positions`); 0 if it tells none."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = config.get("model_type")
    names = CONFIG_MAPPING[kind].attribute_map if kind in CONFIG_MAPPING else {}
    return int(config.get(key) or config.get(names.get(key, key)) or 0)
