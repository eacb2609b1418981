"""What an adapter's folder holds, and whether it fits a base."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from auditor.errors import BadModel
from auditor.models.weights import Weights

_MATRIX = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
# Fields of an adapter's config that change nothing which the matrices do not tell.
_HARMLESS = frozenset(
    {"task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "r", "target_modules",
     "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out", "use_rslora", "layers_to_transform",
     "layers_pattern", "rank_pattern", "alpha_pattern", "peft_version", "ensure_weight_tying", "init_lora_weights"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Adapter:
    """Down (r, d_in) and up (d_out, r) matrices by module, the scaling in `up`; `rank` is the widest r."""

    matrices: dict[str, tuple[Tensor, Tensor]]
    rank: int

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for pair in self.matrices.values() for part in pair)


def read_adapter(folder: Path) -> Adapter | None:
    """The matrices of a plain LoRA adapter; None for what is more than two matrices a layer (DoRA and the like)."""
    from peft import LoraConfig, PeftConfig
    from peft.utils.other import get_pattern_key

    config = PeftConfig.from_pretrained(folder)
    usual = LoraConfig().to_dict()
    odd = {key for key, value in config.to_dict().items() if key not in _HARMLESS and value != usual.get(key)}
    tensors = load_file(folder / "adapter_model.safetensors")
    found = {key: _MATRIX.fullmatch(key) for key in tensors}
    initial = getattr(config, "init_lora_weights", None)  # PiSSA and others change the base too
    if odd or not all(found.values()) or initial not in (True, False, "gaussian"):
        return None
    parts: dict[str, dict[str, Tensor]] = {}
    for key, match in found.items():
        assert match is not None
        parts.setdefault(match[1], {})[match[2]] = tensors[key].float()
    matrices = {}
    for path, part in parts.items():
        rank = part["A"].shape[0]
        alpha = config.alpha_pattern.get(get_pattern_key(config.alpha_pattern, path), config.lora_alpha)
        scaling = alpha / (rank**0.5 if config.use_rslora else rank)
        matrices[path] = (part["A"], part["B"] * scaling)
    return Adapter(matrices, max(down.shape[0] for down, _ in matrices.values()))


def rank_of(folder: Path) -> int:
    """The widest rank that an adapter's config speaks of."""
    from peft import LoraConfig, PeftConfig

    config = PeftConfig.from_pretrained(folder)
    return max([config.r, *config.rank_pattern.values()]) if isinstance(config, LoraConfig) else 0


def check_fit(model: Any, adapter: Weights, base_id: str) -> None:
    """Raises BadModel if the adapter's tensors do not fit the base."""
    from peft import PeftConfig
    from safetensors import safe_open

    config = PeftConfig.from_pretrained(adapter.folder)
    meant_for = config.base_model_name_or_path or "another base"
    shapes: dict[str, tuple[int, ...]] = {}
    try:
        with safe_open(adapter.folder / "adapter_model.safetensors", framework="pt") as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise BadModel(f"{adapter.folder}/adapter_model.safetensors cannot be read: {error}") from error
    modules = dict(model.named_modules())
    for key, shape in shapes.items():
        path, _, part = key.removeprefix("base_model.model.").partition(".lora_")
        module = modules.get(path)
        if module is None or not part or not hasattr(module, "weight"):
            fits = not part  # modules_to_save and the like: PEFT checks these itself
        else:
            # Conv1D (GPT-2) stores (in, out), Linear (out, in); lora_A reads in, lora_B writes out.
            fits = (shape[-1] if part.startswith("A") else shape[0]) in tuple(module.weight.shape)
        if not fits:
            raise BadModel(
                f"adapter {adapter.folder} does not fit base {base_id}: {path or key} {shape}; "
                f"it was trained on {meant_for}"
            )
