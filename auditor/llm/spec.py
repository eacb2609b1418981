"""Which LLM plays a role, in one string: `PROVIDER:MODEL?option=value&…`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from auditor.errors import UsageError
from auditor.llm.proxies import missing_socks

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

OFFLINE = "offline"
OPENROUTER = "https://openrouter.ai/api/v1"
OPENROUTER_BODY = {
    "usage": {"include": True},
    "plugins": [{"id": "context-compression", "enabled": False}],  # else models of 8k cut the middle out of prompts
}
# Environment variables that providers' packages read an address from.
_ADDRESSES = {"": "OPENAI_BASE_URL", "openai": "OPENAI_BASE_URL", "azure_openai": "AZURE_OPENAI_ENDPOINT"}

# … and a key, where it is not called as the provider is.
_KEYS = {"google_genai": "GOOGLE_API_KEY", "mistralai": "MISTRAL_API_KEY", "perplexity": "PPLX_API_KEY"}


class ModelSpec(BaseModel):
    """A model and how it is called. Options that are not given are left to the provider."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(description="what `init_chat_model` takes, such as openai:gpt-5, or openrouter:vendor/model")
    effort: Literal["minimal", "low", "medium", "high"] | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    base_url: str | None = None
    key_env: str | None = Field(None, description="environment variable that holds the key")
    key_file: Path | None = Field(None, description="file that holds the key")
    timeout: float = Field(600.0, gt=0, description="seconds of silence after which a call is given up")
    attempts: int = Field(6, ge=1, description="calls made for one answer at most")
    concurrency: int = Field(24, ge=1, description="calls at once to this endpoint")
    price_in: float | None = Field(None, ge=0, description="USD per million input tokens")
    price_out: float | None = Field(None, ge=0, description="USD per million output tokens")

    @property
    def address(self) -> str | None:
        """Where it is asked; None leaves it to the provider's package."""
        if self.provider == "openrouter":
            return self.base_url or OPENROUTER
        return self.base_url or os.environ.get(_ADDRESSES.get(self.provider, "")) or None

    @property
    def endpoint(self) -> str:
        """What the limit of concurrent calls is shared by: the address, else the provider."""
        return self.address or self.provider or self.name

    @property
    def is_compatible(self) -> bool:
        """Whether it is asked by OpenAI's protocol, but elsewhere than at OpenAI's or Azure's."""
        host = urlsplit(self.address or "").hostname or ""
        return self.provider == "openai" and bool(host) and not host.endswith((".openai.com", ".azure.com"))

    @property
    def key_name(self) -> str:
        """Where the key is looked for."""
        own = _KEYS.get(self.provider, f"{self.provider or 'provider'}_api_key".upper())
        return str(self.key_file or self.key_env or own)

    @property
    def provider(self) -> str:
        """`openai`, `anthropic`, …; empty if `init_chat_model` has to guess it."""
        head, colon, _ = self.name.partition(":")
        return head if colon else ""


def parse_spec(text: str) -> ModelSpec:
    """`openai:gpt-5?effort=medium&max_tokens=4000`. Raises UsageError that names the wrong option."""
    name, _, query = text.partition("?")
    try:
        given = parse_qsl(query, strict_parsing=True, keep_blank_values=True) if query else []
    except ValueError as error:
        raise UsageError(f"model {text!r}: options are written name=value, joined by &") from error
    options: dict[str, Any] = {"name": name}
    for key, value in given:
        if key in options:
            raise UsageError(f"model {text!r}: {key} is given twice")
        options[key] = value
    try:
        return ModelSpec(**options)
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(field for field in ModelSpec.model_fields if field != "name")
        hint = f"; options: {known}" if first["type"] == "extra_forbidden" else ""
        raise UsageError(f"model {text!r}: {'.'.join(map(str, first['loc']))}: {first['msg']}{hint}") from error


def api_key(spec: ModelSpec) -> SecretStr | None:
    """The key that was named, else OPENROUTER_API_KEY for OpenRouter; None leaves it to the provider's package."""
    if spec.key_file is not None:
        try:
            return _sound_key(spec.key_file.expanduser().read_text("utf-8").strip(), spec)
        except OSError as error:
            raise UsageError(f"cannot read the key file {spec.key_file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"the key file {spec.key_file} is no text") from error
    name = spec.key_env or ("OPENROUTER_API_KEY" if spec.provider == "openrouter" else None)
    if name is None:
        return None
    if not os.environ.get(name):
        raise UsageError(f"{spec.name} needs {name} in the environment")
    return _sound_key(os.environ[name], spec)


def has_key(spec: ModelSpec) -> bool:
    """Whether a key was given or stands where the provider's package looks for one."""
    return bool(spec.key_file or spec.key_env or os.environ.get(spec.key_name))


def _sound_key(key: str, spec: ModelSpec) -> SecretStr:
    """`key`, if it can be sent. Raises UsageError that does not show it."""
    if not key or not key.isascii() or not key.isprintable() or " " in key:
        wrong = "is empty" if not key else "holds a line break, a space, or a character that no key has"
        raise UsageError(f"the key in {spec.key_name} {wrong}; give nothing but the key")
    return SecretStr(key)


def _check_address(spec: ModelSpec) -> None:
    url = spec.address
    if url is None:
        return
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"base_url {url}: begin it with http:// or https://")
    if url.rstrip("/").endswith("/chat/completions"):
        raise UsageError(f"base_url {url}: leave off /chat/completions")


def connect(spec: ModelSpec) -> BaseChatModel:
    """The LangChain chat model of `spec`, without retries of its own.

    Raises UsageError if the provider, its package or its key is missing.
    """
    from langchain.chat_models import init_chat_model

    from auditor.llm.compatible import CHATS

    _check_address(spec)
    if problem := missing_socks():
        raise UsageError(problem)
    if key := os.environ.get(spec.key_name):  # which the provider's package takes as it is
        _sound_key(key, spec)
    given: dict[str, Any] = {
        "temperature": spec.temperature,
        "max_tokens": spec.max_tokens,
        "base_url": spec.base_url,
        "api_key": api_key(spec),
        "reasoning_effort": spec.effort,
    }
    options: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if spec.provider == "openrouter":
        options |= {"base_url": spec.address, "extra_body": OPENROUTER_BODY}
    elif spec.is_compatible:
        if not has_key(spec):
            options["api_key"] = SecretStr("none")  # local servers want none, the client does
        if spec.max_tokens is not None:  # the client calls it max_completion_tokens, which Ollama takes no notice of
            options["extra_body"] = {"max_tokens": options.pop("max_tokens")}
    options |= {"max_retries": 0, "timeout": spec.timeout}
    try:
        if spec.provider in CHATS:
            return CHATS[spec.provider](model=spec.name.partition(":")[2], **options)
        chat: BaseChatModel = init_chat_model(spec.name, **options)
        return chat
    except ImportError as error:
        raise UsageError(f"{spec.name}: {error}") from error
    except Exception as error:  # each provider has its own error for a missing key or an unknown name
        told = str(error).splitlines()[0]
        if not spec.provider:
            told = "its provider is not to be guessed; write PROVIDER:MODEL, such as openai:gpt-5"
        raise UsageError(f"{spec.name}: {told}") from error
