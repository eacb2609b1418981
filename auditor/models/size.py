"""Whether a model fits into memory, said before it is loaded, or fetched."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from safetensors import safe_open

from auditor.config import SPREAD, Settings
from auditor.errors import BadModel
from auditor.memory import available_memory
from auditor.models.identity import tensor_files

CONVERTED = frozenset({"F64", "F32", "F16", "BF16"})  # kinds of numbers that take the dtype asked for
WIDE = {"I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8}  # bytes of those that do not; the others take one


def parameters_of(folder: Path) -> int:
    """How many numbers a model's files hold."""
    return sum(count for count, _ in _tensors(folder))


def loaded_bytes(folder: Path, settings: Settings) -> int:
    """Bytes of a model's weights in memory."""
    return bytes_as_loaded(_tensors(folder), settings)


def bytes_as_loaded(tensors: Iterable[tuple[int, str]], settings: Settings) -> int:
    """Of so many numbers of a kind each; what is quantized stays as it is stored."""
    size = settings.torch_dtype.itemsize
    return sum(count * (size if kind in CONVERTED else WIDE.get(kind, 1)) for count, kind in tensors)


def free_bytes(settings: Settings) -> int:
    """What is left on the device, or on all of them where weights are spread over several."""
    import torch

    if settings.device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(settings.device)[0])
    if settings.device in SPREAD:
        return sum(torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())) + available_memory()
    return available_memory()


def demand_room(folder: Path, settings: Settings) -> None:
    """Raises BadModel if a model's weights are larger than what is free, with both numbers."""
    demand_free(loaded_bytes(folder, settings), str(folder), settings)


def demand_free(needed: float, who: str, settings: Settings) -> None:
    """Raises BadModel if so many bytes are not free, with what a user can do about it."""
    if needed <= (free := free_bytes(settings)):
        return
    kind = str(settings.torch_dtype).removeprefix("torch.")
    less = "" if settings.torch_dtype.itemsize <= 2 else "AUDITOR_DTYPE=bfloat16 halves it; "
    raise BadModel(
        f"{who}: the weights take about {needed / 1e9:.1f} GB in {kind}, and {free / 1e9:.1f} GB are free on "
        f"{settings.device}; {less}a larger machine can serve it (`auditor serve`, --server)"
    )


def _tensors(folder: Path) -> list[tuple[int, str]]:
    """Of every tensor how many numbers it has, and of what kind."""
    found, files = [], tensor_files(folder)
    for path in [path for path in files if not path.name.startswith("consolidated")] or files:  # Mistral's second copy
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                found.append((math.prod(part.get_shape()), part.get_dtype()))
    return found
