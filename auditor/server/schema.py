"""Requests and answers of the routes that people and OpenAI clients use."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from auditor.models.generate import Side
from auditor.models.wire import MOST_TOKENS, Amplify, Body

MOST_CHARACTERS = 1_000_000  # of one message


Stop = Annotated[str, Field(min_length=1, max_length=200)]


class Push(Body):
    """Add α · η · δ/‖δ‖ to the residual stream after block `layer`, δ being the pair's difference at `position`."""

    layer: int = Field(ge=0, strict=True)
    position: int = Field(ge=0, strict=True)
    alpha: float = Field(ge=-1000, le=1000, allow_inf_nan=False)


class Proof(BaseModel):
    """What was added to the residual stream, and what arrived at the next block of it."""

    vector_sha256: str  # of η · δ/‖δ‖ in little-endian float32
    layer: int
    position: int
    alpha: float
    asked_shift: float  # L2 norm of what is added at every token
    residual_shift: float  # measured: mean L2 norm over the prompt's tokens


class Comparison(BaseModel):
    """What was amplified, and how likely each model finds what came of it; null where nothing was said."""

    alpha: float
    plausibility: float
    finetuned: float | None  # measured: mean log-probability of the tokens, in nats
    base: float | None
    log_ratio: float | None  # the finetune's less the base's


class Part(BaseModel):
    type: Literal["text"]
    text: str = Field(max_length=MOST_CHARACTERS)


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(fail_fast=True)] = Field(max_length=MOST_CHARACTERS)
    name: str | None = None

    def plain(self) -> dict[str, str]:
        """As chat templates take it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Body):
    """OpenAI's request, with `steering` and `amplify`. What this server cannot do is refused, not ignored."""

    most_keys = 10_000
    model: str = Field(max_length=300)
    messages: list[Message] = Field(min_length=1, max_length=1000)
    steering: Push | None = None
    amplify: Amplify | None = None
    max_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    max_completion_tokens: int | None = Field(None, ge=1, le=MOST_TOKENS)
    temperature: float | None = Field(None, ge=0, le=100)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1, le=128)
    seed: int | None = Field(None, ge=0, lt=1 << 63)
    stop: Stop | list[Stop] | None = Field(None, max_length=200)
    stream: bool | None = None
    stream_options: dict[str, bool] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    user: str | None = Field(None, max_length=200)
    # Of no effect here, and of no harm.
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    parallel_tool_calls: bool | None = None
    # Refused unless they ask for nothing.
    tools: list[Any] | None = Field(None, max_length=0)
    tool_choice: Literal["none", "auto"] | None = None
    functions: list[Any] | None = Field(None, max_length=0)
    response_format: dict[str, Literal["text"]] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: dict[str, float] | None = Field(None, max_length=0)

    @field_validator("frequency_penalty", "presence_penalty", mode="before")
    @classmethod
    def _zero(cls, value: Any) -> Any:
        return 0 if value == 0 else value

    @field_validator("stop")
    @classmethod
    def _few(cls, value: str | list[str] | None) -> str | list[str] | None:
        if isinstance(value, list) and len(value) > 16:
            raise ValueError("at most 16 texts")
        return value

    @model_validator(mode="after")
    def _together(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs")
        if self.messages[-1].role in ("system", "developer"):
            raise ValueError("the last message must be the user's, or the beginning of the assistant's answer")
        return self

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    @property
    def tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens


class Asked(Body):
    """Prompts for a pair, each a chat of its own (or, with `chat` off, the beginning of a text; with `user_turn`, the
    beginning of a user's words, which may be empty).
    """

    organism: str = Field(max_length=300)
    prompts: list[str] = Field(min_length=1, max_length=1024)
    system: str = Field("", max_length=MOST_CHARACTERS)
    prefill: str = Field("", max_length=MOST_CHARACTERS)
    chat: bool = True
    user_turn: bool = False
    max_new_tokens: int = Field(200, ge=1, le=MOST_TOKENS)
    temperature: float = Field(0.7, ge=0, le=100)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = Field(0, ge=0, lt=1 << 63)


class BothAsked(Asked):
    """The same for both models; with `amplify` each prompt has an amplified answer of the finetuned one, too."""

    amplify: Amplify | None = None


class Steered(Asked):
    """The same with a push along δ, and `n` texts for each prompt."""

    steering: Push
    side: Side = Side.FINETUNED
    n: int = Field(1, ge=1, le=128)


class Answer(BaseModel):
    prompt: str
    base: str
    finetuned: str
    amplified: str | None = None
    amplify: Comparison | None = None  # of what was amplified


class Answers(BaseModel):
    organism: str
    seed: int
    answers: list[Answer]


class SteeredAnswer(BaseModel):
    prompt: str
    texts: list[str]
    steering: Proof


class SteeredAnswers(BaseModel):
    organism: str
    seed: int
    answers: list[SteeredAnswer]
