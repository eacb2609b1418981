"""Fakes for tests of plugins and of the graph: a pair that answers from a function, a chat that follows a script."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from torch import Tensor

from auditor.errors import NoBase
from auditor.models.generate import Amplified, Request, Side


def _echo(request: Request) -> str:
    return f"{request.side}: {request.prompt}"


class FakePair:
    """A `ModelPair` without weights. `answer` makes the text of each request; all requests are kept.

    Without `has_base` it speaks as the finetune only.
    """

    name, fingerprint, dtype, note, tokenizer = "fake", "fake", "torch.float32", "", None
    n_layers, d_model = 4, 8
    base_sources: tuple[str, ...] = ()
    tuned_sources: tuple[str, ...] = ()
    images = False

    def __init__(self, answer: Callable[[Request], str] = _echo, *, has_base: bool = True) -> None:
        self.answer, self.has_base, self.requests = answer, has_base, list[Request]()

    def generate(self, requests: Sequence[Request]) -> list[str]:
        if not self.has_base and any(request.side is Side.BASE or request.amplify for request in requests):
            raise NoBase
        self.requests += requests
        return [self.answer(request) for request in requests]

    def amplified(self, requests: Sequence[Request]) -> list[Amplified]:
        return [Amplified(text, -1.0, -2.0) for text in self.generate(requests)]

    def residuals(self, side: Side, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        return {layer: torch.zeros(*ids.shape, self.d_model) for layer in layers}

    def unembed(self, side: Side, vectors: Tensor) -> Tensor:
        return torch.zeros(len(vectors), 16)

    def patched_logits(
        self, side: Side, prompts: Sequence[str], layer: int, vectors: Tensor
    ) -> Iterator[tuple[Tensor, ...]]:
        yield tuple(torch.zeros(len(vectors), 16) for _ in prompts)

    def pushed_logits(self, side: Side, rows: Sequence[Sequence[int]], layer: int, vectors: Tensor) -> Iterator[Tensor]:
        yield torch.zeros(len(rows), len(vectors), 16)

    def swapped_nll(
        self,
        host: Side,
        rows: Sequence[Sequence[int]],
        learned: Sequence[Sequence[bool]],
        layer: int,
        vectors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        return torch.ones(len(rows), 1 + len(vectors)), torch.ones(len(rows))

    def mean_nll(self, side: Side, texts: Sequence[str]) -> list[float]:
        return [1.0] * len(texts)

    def said_nll(self, side: Side, requests: Sequence[Request], texts: Sequence[str]) -> list[tuple[float, int]]:
        return [(float(len(text.split())), len(text.split())) for text in texts]


Turn = str | AIMessage | Exception


class ScriptedChat(BaseChatModel):
    """Gives `turns` one after another, whatever it reads; an exception among them is raised."""

    turns: list[Any]
    seen: list[list[BaseMessage]] = []  # noqa: RUF012 (a pydantic field: copied for each instance)

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **_kwargs: Any) -> ScriptedChat:
        return self

    def _generate(self, messages: list[BaseMessage], *_args: Any, **_kwargs: Any) -> ChatResult:
        self.seen.append(list(messages))
        turn: Turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        message = AIMessage(turn) if isinstance(turn, str) else turn
        return ChatResult(generations=[ChatGeneration(message=message)])


def calling(name: str, args: dict[str, Any], call_id: str = "call-1") -> AIMessage:
    """A turn that calls one tool."""
    return AIMessage("", tool_calls=[{"name": name, "args": args, "id": call_id}])
