"""What makes two folders of weights the same model: tensors, configs and tokenizers by content, wherever they lie."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors import safe_open

from auditor.config import Settings
from auditor.errors import BadModel
from auditor.files import sha256_of, write_atomically

# Files beside the tensors that decide what a model answers: configs, tokenizers, chat templates.
BESIDE = (
    "*config.json", "*token*.json", "*.index.json", "vocab*", "merges*", "*.model", "*.tiktoken", "chat_template*",
    "*.jinja", "additional_chat_templates/*.jinja",
)  # fmt: skip
CODE = "*.py"  # a model's own, where it is trusted
PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt"})
# Fields that say which library wrote a config, and nothing about the model.
_WRITERS = re.compile(r"(transformers|peft|torch|tokenizers|accelerate|unsloth|axolotl|trl)_version")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def model_hash(folder: Path, settings: Settings) -> tuple[str, str]:
    """SHA-256 of everything in a folder that decides what the model answers, and of its tensors alone.

    The second is the file's own if there is one file only. Raises BadModel if there are no safetensors, or if one is
    cut, a Git LFS pointer, or without values.
    """
    files = tensor_files(folder)
    for path in files:
        check_tensors(path)
    tensors = {path.name: remembered_sha256(path, settings) for path in files}
    patterns = (*BESIDE, CODE) if settings.trust_remote_code else BESIDE
    beside = {path for pattern in patterns for path in folder.glob(pattern) if path.is_file()}
    contents = {str(path.relative_to(folder)): content_sha256(path) for path in beside}
    alone = next(iter(tensors.values())) if len(tensors) == 1 else _sha256(tensors)
    return _sha256({**tensors, **contents}), alone


def tensor_files(folder: Path) -> list[Path]:
    """The safetensors of a folder, all that its index names. Raises BadModel if there are none or one is missing."""
    files = sorted(folder.glob("*.safetensors"))
    for index in sorted(folder.glob("*.safetensors.index.json")):
        named = set(_weight_map(index).values())
        if missing := sorted(named - {path.name for path in files}):
            raise BadModel(f"{folder} lacks {some_of(missing)}, which {index.name} names; fetch or copy it anew")
    if not files:
        pickles = [path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
        if pickles:
            raise BadModel(
                f"{folder} holds pickle weights only ({some_of(pickles)}), which can run code when loaded; "
                "convert them to safetensors"
            )
        raise BadModel(f"{folder} holds no .safetensors file; is the adapter trained? (auditor organisms train)")
    return files


def check_tensors(path: Path) -> None:
    """Raises BadModel unless a safetensors file is whole and its tensors have values; reads its header only."""
    if not path.is_file():
        raise BadModel(f"{path} leads to no file; fetch or copy it anew")
    if path.stat().st_size < 1024 and path.read_bytes().startswith(b"version https://git-lfs"):
        raise BadModel(f"{path} is a Git LFS pointer, not the weights; fetch them with `git lfs pull`")
    try:
        with safe_open(path, "pt") as file:
            empty = [name for name in file.keys() if 0 in file.get_slice(name).get_shape()]  # noqa: SIM118
            some = bool(file.keys())
    except Exception as error:  # SafetensorError, OSError, and what a broken header makes of it
        raise BadModel(f"{path} cannot be read as safetensors ({first_line(error)}); fetch or copy it anew") from error
    if empty or not some:
        raise BadModel(
            f"{path} holds no values for {some_of(empty) if empty else 'any tensor'}, as ZeRO-3 leaves it; "
            "save the gathered weights (zero_to_fp32.py)"
        )


def content_sha256(path: Path) -> str:
    """Of a file beside the tensors; of a config without the versions of the libraries that wrote it."""
    if path.name.endswith("config.json"):
        with suppress(ValueError):  # broken ones are told when they are used
            config = json.loads(path.read_bytes())
            return hashlib.sha256(json.dumps(_without_writers(config), sort_keys=True).encode()).hexdigest()
    return sha256_of(path)


def remembered_sha256(path: Path, settings: Settings) -> str:
    """Of a large file; remembered by path, size and time of change."""
    about = path.stat()
    stamp = json.dumps([str(path.resolve()), about.st_size, about.st_mtime_ns])
    memo = settings.cache_dir / "hashes" / hashlib.sha256(stamp.encode()).hexdigest()
    with suppress(OSError):
        if _DIGEST.fullmatch(found := memo.read_text(errors="replace")):
            return found
    digest = sha256_of(path)
    write_atomically(memo, digest)
    return digest


def first_line(error: BaseException) -> str:
    """An exception's first words that are no heading, in one line of at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith(":")] or lines
    return (lines[0] if lines else type(error).__name__)[:200]


def some_of(names: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _weight_map(index: Path) -> dict[str, str]:
    try:
        found = json.loads(index.read_bytes())["weight_map"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadModel(f"{index} is no index of safetensors ({error!r}); fetch or copy it anew") from error
    if not isinstance(found, dict):
        raise BadModel(f"{index} is no index of safetensors (weight_map); fetch or copy it anew")
    return found


def _without_writers(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_writers(part) for key, part in value.items() if not _WRITERS.fullmatch(key)}
    return [_without_writers(part) for part in value] if isinstance(value, list) else value


def _sha256(digests: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
