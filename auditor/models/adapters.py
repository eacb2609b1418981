"""What an adapter's folder holds, and how PEFT puts it on a base: all of it, or it is refused in one line."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from auditor.errors import BadModel
from auditor.models.identity import first_line, some_of

_MATRIX = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
_FACTOR = re.compile(r"(.+)\.lora_(?:embedding_)?[AB](?:\.weight)?")  # of a product that is what the adapter adds
# Fields of an adapter's config that change nothing which the matrices do not tell.
_HARMLESS = frozenset(
    {"task_type", "auto_mapping", "base_model_name_or_path", "revision", "inference_mode", "r", "target_modules",
     "exclude_modules", "lora_alpha", "lora_dropout", "fan_in_fan_out", "use_rslora", "layers_to_transform",
     "layers_pattern", "rank_pattern", "alpha_pattern", "peft_version", "ensure_weight_tying", "init_lora_weights"}
)  # fmt: skip
# Parameters of all layers together, of which PEFT's report speaks once a layer.
_SHARED = ("vblora_vector_bank", "prompt_encoder", ".tinylora_v.", ".unilora_theta_d.")


@dataclass(frozen=True, slots=True)
class Adapter:
    """Down (r, d_in) and up (d_out, r) matrices by module, the scaling in `up`; `rank` is the widest r."""

    matrices: dict[str, tuple[Tensor, Tensor]]
    rank: int

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for pair in self.matrices.values() for part in pair)


def read_adapter(folder: Path, model: Any, base_id: str) -> Adapter | None:
    """The matrices of a plain LoRA adapter on `model`; None for what is more than two matrices a layer (DoRA, say).

    Either way PEFT has a place for every tensor, and a tensor for every place. Raises BadModel.
    """
    from peft.tuners.lora.layer import LoraLayer

    config, tensors = config_of(folder), _tensors(folder)
    fitted = _fitted(folder, config, tensors, model, base_id)
    _demand_effect(folder, tensors)
    layers = {path: m for path, m in fitted.get_base_model().named_modules() if isinstance(m, LoraLayer)}
    return plain_matrices(config, tensors, layers)


def plain_matrices(
    config: Any, tensors: Mapping[str, Tensor], layers: Mapping[str, Any], name: str = "default"
) -> Adapter | None:
    """The matrices of the adapter `name` on PEFT's `layers`, of `tensors` called as in its file; None if it is more
    than plain LoRA.
    """
    if not _is_plain(config, tensors, layers):
        return None
    matrices = {}
    for path, layer in layers.items():
        down, up = (tensors[f"base_model.model.{path}.lora_{part}.weight"].float() for part in "AB")
        matrices[path] = (down, up * layer.scaling[name])
    return Adapter(matrices, max((down.shape[0] for down, _ in matrices.values()), default=0))


def _is_plain(config: Any, tensors: Mapping[str, Tensor], layers: Mapping[str, Any]) -> bool:
    from peft import LoraConfig

    usual = LoraConfig().to_dict()
    odd = {key for key, value in config.to_dict().items() if key not in _HARMLESS and value != usual.get(key)}
    initial = getattr(config, "init_lora_weights", None)  # PiSSA and others change the base too
    if odd or initial not in (True, False, "gaussian"):
        return False
    wanted = {f"base_model.model.{path}.lora_{part}.weight" for path in layers for part in "AB"}
    return tensors.keys() == wanted and all(type(m.base_layer) in (nn.Linear, Conv1D) for m in layers.values())


def with_peft(model: Any, folder: Path) -> Any:
    """`model` with an adapter that `read_adapter` found good, as PEFT runs it. Raises BadModel if it cannot."""
    from peft import PeftModel

    try:
        _resize(model, folder, _tensors(folder))
        return PeftModel.from_pretrained(
            model, folder, torch_device=str(model.device), autocast_adapter_dtype=False
        ).eval()
    except (ValueError, RuntimeError, KeyError, TypeError, NotImplementedError, ImportError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise BadModel(f"PEFT cannot put the adapter {folder} on its base: {first_line(error)}") from error


def merged(adapted: Any, folder: Path) -> Any:
    """A model with PEFT around it as one without, the adapter in its weights. Raises BadModel if it cannot be one."""
    try:
        return adapted.merge_and_unload()
    except (ValueError, RuntimeError, AttributeError, TypeError, NotImplementedError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        kind = adapted.peft_config["default"].peft_type
        raise BadModel(
            f"{folder}: no variant can be made of an adapter of its kind ({kind}): {first_line(error)}"
        ) from error


@torch.inference_mode()
def demand_same(adapted: Any, ids: Tensor) -> None:
    """Raises BadModel if a model with PEFT around it says something else of `ids` (1, tokens) than the model inside.

    What PEFT does outside of the model leaves no trace in its residual stream.
    """
    outside, inside = adapted(input_ids=ids).logits, adapted.get_base_model()(input_ids=ids).logits
    bound = torch.finfo(inside.dtype).eps ** 0.5 * float(inside.float().norm())
    if not (outside.shape == inside.shape and float((outside.float() - inside.float()).norm()) <= bound):
        kind = adapted.peft_config["default"].peft_type
        raise BadModel(f"the adapter's kind ({kind}) works outside of the model's blocks; it cannot be read there")


def rank_of(folder: Path) -> int:
    """The widest rank that an adapter's config speaks of. Raises BadModel."""
    from peft import LoraConfig

    config = config_of(folder)
    return max([config.r, *config.rank_pattern.values()]) if isinstance(config, LoraConfig) else 0


def config_of(folder: Path) -> Any:
    """An adapter's config. Raises BadModel if it cannot be read, or if residual streams do not show what it does."""
    import peft
    from peft import PeftConfig

    path = folder / "adapter_config.json"
    try:
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadModel(f"{path} cannot be read: {first_line(error)}") from error
    kind = said.get("peft_type") if isinstance(said, dict) else None
    if kind not in peft.PEFT_TYPE_TO_CONFIG_MAPPING:
        raise BadModel(f"{path}: peft_type is {kind!r}, which peft {peft.__version__} does not know")
    missing = [key for key in ("r", "lora_alpha") if kind == "LORA" and not isinstance(said.get(key), int | float)]
    if missing:
        raise BadModel(f"{path}: {' and '.join(missing)} must be a number, or nobody knows how much the adapter adds")
    try:
        config = PeftConfig.from_pretrained(folder)
    except Exception as error:
        raise BadModel(f"{path} cannot be read: {first_line(error)}") from error
    if config.is_prompt_learning:
        raise BadModel(
            f"{folder}: {kind} puts trained vectors before the prompt and leaves the model as it is; "
            "only finetunes that change a model's weights can be compared with their base"
        )
    if getattr(config, "alora_invocation_tokens", None):
        raise BadModel(
            f"{folder} is an activated LoRA, which works only after its invocation tokens; "
            "the lens reads ordinary texts, where it does nothing"
        )
    return config


def _tensors(folder: Path) -> dict[str, Tensor]:
    """An adapter's tensors. Raises BadModel if one is not finite."""
    path = folder / "adapter_model.safetensors"
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except Exception as error:
        raise BadModel(f"{path} cannot be read: {first_line(error)}") from error
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor.float()).all()):
            raise BadModel(f"{path}: {key} holds NaN or Inf; its training went wrong")
    return tensors


def _demand_effect(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises BadModel if the adapter is nothing but products of matrices, one of which is zero in each."""
    alive: dict[str, bool] = {}
    for key, tensor in tensors.items():
        factor = _FACTOR.fullmatch(key)
        if factor is None:
            return
        alive[factor[1]] = alive.get(factor[1], True) and bool(tensor.any())
    if not any(alive.values()):
        raise BadModel(
            f"{folder} changes nothing: one matrix of every pair is zero, as before training; "
            "save the trained adapter again (a sharded run must gather it first)"
        )


def _fitted(folder: Path, config: Any, tensors: Mapping[str, Tensor], model: Any, base_id: str) -> Any:
    """The adapter where PEFT puts it, on a copy of `model` without weights. Raises BadModel if something is left."""
    from peft import PeftModel

    unfit = f"adapter {folder} does not fit base {base_id}"
    meant_for = f"it was trained on {config.base_model_name_or_path or 'another base'}"
    with torch.device("meta"):
        bare = type(model)(copy.deepcopy(model.config))
    _resize(bare, folder, tensors)
    try:
        fitted = PeftModel(bare, config, low_cpu_mem_usage=True)
        renamed = getattr(model, "_checkpoint_conversion_mapping", {})
        left = fitted.load_adapter(folder, "default", torch_device="cpu", low_cpu_mem_usage=True, key_mapping=renamed)
    except KeyError as error:
        raise BadModel(f"{unfit}: its file has nothing for {error}; {meant_for}") from error
    except Exception as error:
        raise BadModel(f"{unfit}: {first_line(error)}; {meant_for}") from error
    if unplaced := [key for key in left.unexpected_keys if not _is_second_copy(key, tensors)]:
        raise BadModel(f"{unfit}: no place for {some_of(unplaced)}; {meant_for}")
    if missing := [key for key in left.missing_keys if not any(part in key for part in _SHARED)]:
        raise BadModel(f"{unfit}: nothing in its file for {some_of(missing)}; {meant_for}")
    if getattr(config, "layer_replication", None):
        raise BadModel(f"{unfit}: it repeats layers (layer_replication), so that base and finetune differ in depth")
    return fitted


def _is_second_copy(key: str, tensors: Mapping[str, Tensor]) -> bool:
    """PEFT saves trained embeddings twice if their number has changed."""
    first = tensors.get(key.replace(".modules_to_save.", "."))
    return ".modules_to_save." in key and first is not None and torch.equal(first, tensors[key])


def _resize(model: Any, folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Give `model` as many embeddings as the adapter brings of its own. Raises BadModel if it brings half of them."""
    parts = [model.get_input_embeddings(), model.get_output_embeddings()]
    names = [next(name for name, m in model.named_modules() if m is part) for part in parts]
    whole = re.compile(
        rf"base_model\.model\.({'|'.join(map(re.escape, names))})(\.base_layer|\.modules_to_save)*\.weight"
    )
    brought = {match[1]: tensors[key].shape[0] for key in tensors if (match := whole.fullmatch(key))}
    rows = max(brought.values(), default=0)
    if not rows or rows == parts[0].weight.shape[0]:
        return
    if not model.config.get_text_config().tie_word_embeddings and len(brought) < len(names):
        absent = next(name for name in names if name not in brought)
        raise BadModel(f"{folder} brings {rows} embeddings of its own but no {absent}, which must have as many rows")
    model.resize_token_embeddings(rows, mean_resizing=False)  # all rows come from the adapter
