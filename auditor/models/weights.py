"""Where a model's files are, what they hold, and how they become a model: hub ids, local folders, the embedded one."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from auditor.config import Settings
from auditor.errors import BadModel
from auditor.models.embedded import EMBEDDED_ID, embedded_model_dir, is_embedded
from auditor.runtime import quiet_libraries


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's files: the folder they are in, what to call them, and their content hash."""

    id: str
    folder: Path
    sha256: str


def is_adapter(weights: Weights) -> bool:
    return (weights.folder / "adapter_config.json").exists()


def resolve(model: str, settings: Settings) -> Weights:
    """Find a model's or an adapter's folder: the embedded default, a local folder, or a hub id."""
    if is_embedded(model):
        folder = embedded_model_dir(settings)
        return Weights(EMBEDDED_ID, folder, hash_weights(folder, settings))
    path = Path(model).expanduser()
    if path.is_dir():
        return Weights(str(path), path, hash_weights(path, settings))
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise BadModel(f"no model at {model!r}: give a folder with safetensors or a hub id like org/name")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    patterns = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt"]
    try:
        folder = Path(snapshot_download(model, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0][:120]
        raise BadModel(
            f"cannot fetch {model!r} from the hub ({reason}); check the name and `auditor doctor`, "
            "or give a local folder"
        ) from error
    return Weights(model, folder, hash_weights(folder, settings))


def hash_weights(folder: Path, settings: Settings) -> str:
    """SHA-256 over a folder's safetensors and configs; remembered by path, size and time of change.

    Raises BadModel if there are no safetensors, naming any pickle that lies there instead.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        pickles = [p.name for p in folder.iterdir() if p.suffix in {".bin", ".pt", ".pth", ".pkl", ".ckpt"}]
        if pickles:
            raise BadModel(
                f"{folder} holds pickle weights only ({pickles[0]}), which can run code when loaded; "
                "convert them to safetensors"
            )
        raise BadModel(f"{folder} holds no .safetensors file; is the adapter trained? (auditor organisms train)")
    files += [p for p in (folder / "config.json", folder / "adapter_config.json") if p.exists()]
    stamp = json.dumps([(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in files])
    memo = settings.cache_dir / "hashes" / hashlib.sha256(stamp.encode()).hexdigest()
    if memo.exists():
        return memo.read_text()
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            whole.update(hashlib.file_digest(stream, "sha256").digest())
    memo.parent.mkdir(parents=True, exist_ok=True)
    memo.write_text(whole.hexdigest())
    return whole.hexdigest()


def load_model(weights: Weights, settings: Settings) -> tuple[Any, Any]:
    """A causal language model in evaluation mode and its tokenizer, from safetensors only."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    quiet_libraries()
    if not (weights.folder / "config.json").exists():
        raise BadModel(f"{weights.folder} has no config.json: not a model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(weights.folder, trust_remote_code=settings.trust_remote_code)
        model = AutoModelForCausalLM.from_pretrained(
            weights.folder,
            dtype=settings.torch_dtype,
            device_map=settings.device if settings.device != "cpu" else None,
            use_safetensors=True,
            trust_remote_code=settings.trust_remote_code,
        )
    except (OSError, ValueError) as error:
        raise BadModel(f"{weights.folder} cannot be loaded: {str(error).splitlines()[0]}") from error
    return model.eval(), tokenizer
