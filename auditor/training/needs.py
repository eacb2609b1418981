"""Whether the memory suffices for a training, told before it begins."""

from __future__ import annotations

import json
import math
from pathlib import Path

from safetensors import safe_open

from auditor.config import Settings
from auditor.errors import UsageError
from auditor.memory import available_memory
from auditor.models.identity import tensor_files
from auditor.records.cards import Method, Recipe
from auditor.training.course import TOKENS_AT_ONCE

FULL_BYTES = 16  # a parameter's float32 weight, gradient and two moments
KEPT = 24  # numbers that a block keeps for a token, in widths of its residual stream


def demand_memory(folder: Path, recipe: Recipe, settings: Settings) -> None:
    """Raises UsageError if training needs more than is free, with the two numbers and what needs less."""
    needed, free = needed_bytes(folder, recipe, settings), _free(settings)
    if needed <= free:
        return
    less = "" if recipe.method == Method.LORA else "; `method: lora` needs far less"
    raise UsageError(
        f"training {folder.name} by {recipe.method} needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
        f"free on {settings.device}{less or '; fewer `max_tokens`, or `dtype: bfloat16`, need less'}"
    )


def needed_bytes(folder: Path, recipe: Recipe, settings: Settings) -> int:
    """Weights, what the optimizer keeps, and the activations and logits of the tokens that are in memory together."""
    parameters = _parameters(folder)
    config = json.loads((folder / "config.json").read_bytes())
    config = config.get("text_config") or config
    width, layers, vocab = (int(config.get(k) or 0) for k in ("hidden_size", "num_hidden_layers", "vocab_size"))
    size = settings.torch_dtype.itemsize
    tokens = max(recipe.max_tokens, TOKENS_AT_ONCE.get(settings.device.split(":")[0], TOKENS_AT_ONCE["cpu"]))
    alive = tokens * (KEPT * width * layers * size + 3 * vocab * 4)
    if recipe.method == Method.FULL:
        return parameters * FULL_BYTES + alive
    lora = 2 * recipe.rank * math.isqrt(7 * parameters * layers)  # seven square matrices in each block
    return parameters * size + lora * FULL_BYTES + alive


def _parameters(folder: Path) -> int:
    count = 0
    for path in tensor_files(folder):
        with safe_open(path, "pt") as file:
            count += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count


def _free(settings: Settings) -> int:
    if settings.device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(settings.device)[0])
    return available_memory()
