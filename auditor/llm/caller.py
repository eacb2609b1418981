"""One way to call a chat model: limited, retried, counted, written down, and never paid twice."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, message_to_dict, messages_from_dict
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from auditor import telemetry
from auditor.errors import AuditorError
from auditor.llm.failures import LONGEST_WAIT, CallFailed, EndpointUnusable, Malformed, Retryable, sort_out
from auditor.llm.journal import Answered, Asked, Journal, NoJournal
from auditor.llm.servers import cut_short
from auditor.llm.spec import ModelSpec, api_key, connect

DECISIVE = {"name", "effort", "temperature", "max_tokens"}  # options that decide what is answered

_slots: dict[str, threading.BoundedSemaphore] = {}
_slots_lock = threading.Lock()


@dataclass(frozen=True, slots=True)
class Reply:
    """A model's answer and what it took. Tokens and cost are None where the endpoint does not tell."""

    message: AIMessage
    attempts: int = 1
    seconds: float = 0.0
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int | None = None
    cost_usd: float | None = None


@dataclass
class Caller:
    """A chat model behind its endpoint's limits. `name` is what results call it; it holds no key."""

    name: str
    chat: BaseChatModel
    spec: ModelSpec | None = None
    journal: Journal = field(default_factory=NoJournal)
    sleep: Callable[[float], None] = time.sleep
    answered: bool = False  # whether the endpoint ever answered
    takes_tools: bool | None = None  # None: not known yet
    no_tools: str = ""  # why it takes none, as the endpoint says
    unusable: EndpointUnusable | None = None  # why no call can succeed: the others need not try

    def call(
        self,
        messages: Sequence[BaseMessage],
        *,
        role: str,
        job: str = "",
        tools: Sequence[dict[str, Any]] = (),
        repeat: int = 0,
        usable: Callable[[AIMessage], bool] = lambda message: not flaw(message),
        at_least: int = 0,
    ) -> Reply:
        """The model's answer to `messages`; the same call that a cut-off run finished is taken from the journal.

        `role`: what it is made for (`agent`, a grader's name); `job`: the audit it belongs to. An answer that is not
        `usable` is written down, and never taken from there. `at_least`: tokens that the prompt is known to have.
        Raises CallFailed when all attempts failed or the endpoint cut the prompt, EndpointUnusable if none can succeed.
        """
        asked = self._asked(messages, tools, role, job, repeat)
        with telemetry.llm_call(asked, self.spec) as span:
            known = self.journal.find(asked.key)
            reply = self._paid(messages, asked, usable, at_least) if known is None else _restore(known)
            telemetry.replied(span, reply, replayed=known is not None)
        return reply

    def _paid(
        self, messages: Sequence[BaseMessage], asked: Asked, usable: Callable[[AIMessage], bool], at_least: int
    ) -> Reply:
        """The answer to a call that was not made before, written down."""
        if self.unusable:
            raise self.unusable
        reply = self._attempts(*self._hinted(messages, asked.tools, f"{asked.job} {asked.role}"), asked, at_least)
        answered = Answered(
            message_to_dict(reply.message), "", reply.attempts, reply.seconds,
            reply.tokens_in, reply.tokens_out, reply.tokens_cached, reply.cost_usd,
        )  # fmt: skip
        self.journal.add(asked, answered, usable=usable(reply.message))
        return reply

    def _asked(
        self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]], role: str, job: str, repeat: int
    ) -> Asked:
        """The whole request. Where the model is reached, with what key and how patiently is no part of it."""
        sent = tuple(message_to_dict(message) for message in messages)
        options = {} if self.spec is None else self.spec.model_dump(include=DECISIVE, exclude_none=True)
        whole = [self.name, options, role, job, repeat, [_essence(message) for message in sent], list(tools)]
        key = hashlib.sha256(json.dumps(whole, sort_keys=True, default=str).encode()).hexdigest()
        return Asked(key, job, role, repeat, self.name, options, self.spec is not None, sent, tuple(tools))

    def _hinted(
        self, messages: Sequence[BaseMessage], tools: Sequence[dict[str, Any]], conversation: str
    ) -> tuple[Any, Sequence[BaseMessage]]:
        """The model and the messages with what helps the provider to recognise the conversation's beginning."""
        chat: Any = self.chat.bind_tools(tools) if tools else self.chat
        if self.spec is None:
            return chat, messages
        if self.spec.provider == "openai" and self.spec.endpoint == "openai":  # others may refuse the field
            return chat.bind(prompt_cache_key=conversation.strip()[:64]), messages
        if self.spec.provider == "anthropic" or self.spec.name.startswith("openrouter:anthropic/"):
            return chat, cache_marked(messages)
        return chat, messages

    def _attempts(self, chat: Any, messages: Sequence[BaseMessage], asked: Asked, at_least: int) -> Reply:
        limit = self.spec.attempts if self.spec else 1
        retrying = Retrying(
            retry=retry_if_exception_type(Retryable),
            stop=stop_after_attempt(limit),
            wait=_patience,
            sleep=self.sleep,
            reraise=True,
        )
        begun = time.perf_counter()
        try:
            for attempt in retrying:
                with attempt, self._slot():
                    self.journal.demand()  # others were waited for, and the disk may have had no room for theirs
                    with self._failures_noted(asked, attempt.retry_state.attempt_number):
                        message = self._once(chat, messages, tools=bool(asked.tools))
                        if self.spec and (why := cut_short(messages, asked.tools, message.usage_metadata, at_least)):
                            raise CallFailed(why)
        except Retryable as error:
            tried = f"{limit} attempts" if limit > 1 else "one attempt"
            failed = CallFailed(f"{self.name}: {error} ({tried})")
            failed.perhaps_tools = error.perhaps_tools
            raise failed from None
        except EndpointUnusable as error:
            if not error.perhaps_tools:
                self.unusable = error
            raise
        number = retrying.statistics.get("attempt_number", 1)
        return self._counted(message, number, time.perf_counter() - begun)

    def _once(self, chat: Any, messages: Sequence[BaseMessage], *, tools: bool) -> AIMessage:
        try:
            message = chat.invoke(list(messages))
            if not isinstance(message, AIMessage):
                raise Malformed(f"a {type(message).__name__}")
        except Exception as error:
            if self.spec is None or (isinstance(error, AuditorError) and not isinstance(error, Malformed)):
                raise  # of a model in this process: a bug is a bug
            known = sort_out(error, self.spec, answered_before=self.answered, tools=tools)
            raise self._scrubbed(known) from None  # the client's own error may hold the key
        self.answered = True
        return _whole(message)

    @contextmanager
    def _failures_noted(self, asked: Asked, attempt: int) -> Iterator[None]:
        """An attempt that fails is written down, too."""
        begun = time.perf_counter()
        try:
            yield
        except AuditorError as error:
            self.journal.add(asked, Answered(None, str(error), attempt, time.perf_counter() - begun), usable=False)
            raise

    def _slot(self) -> threading.BoundedSemaphore:
        name, limit = (self.spec.endpoint, self.spec.concurrency) if self.spec else (f"in process {id(self)}", 64)
        with _slots_lock:
            return _slots.setdefault(f"{name} {limit}", threading.BoundedSemaphore(limit))

    def _scrubbed(self, error: AuditorError) -> AuditorError:
        error.args = (scrub(str(error), self.spec),)
        return error

    def _counted(self, message: AIMessage, attempts: int, seconds: float) -> Reply:
        usage = message.usage_metadata
        if usage is None:
            return Reply(message, attempts, seconds)
        tokens_in, tokens_out = usage["input_tokens"], usage["output_tokens"]
        cost = (message.response_metadata.get("token_usage") or {}).get("cost")  # OpenRouter tells it
        spec = self.spec
        if cost is None and spec and spec.price_in is not None and spec.price_out is not None:
            cost = (tokens_in * spec.price_in + tokens_out * spec.price_out) / 1e6
        cached = usage.get("input_token_details", {}).get("cache_read")
        return Reply(message, attempts, seconds, tokens_in, tokens_out, cached, cost)


def open_caller(spec: ModelSpec, journal: Journal | None = None) -> Caller:
    """A Caller for `spec`. Raises UsageError if the provider, its package or its key is missing."""
    return Caller(spec.name, connect(spec), spec, journal or NoJournal())


def flaw(message: AIMessage) -> str:
    """Why this is not all that the model would say; empty if it is."""
    told = message.response_metadata
    reason = str(told.get("finish_reason") or told.get("stop_reason") or "").lower()
    if reason in ("length", "max_tokens", "model_length"):
        return "cut off at a limit of tokens"
    if reason in ("content_filter", "safety", "recitation", "blocklist", "prohibited_content", "spii"):
        return "withheld by the endpoint's content filter"
    return "refused" if reason == "refusal" or message.additional_kwargs.get("refusal") else ""


def scrub(text: str, spec: ModelSpec | None) -> str:
    """`text` without any key that could be in it: the model's own, and all that the environment holds."""
    own = api_key(spec) if spec else None
    keys = {own.get_secret_value()} if own else set()
    keys |= {value for name, value in os.environ.items() if name.endswith(("_API_KEY", "_TOKEN"))}
    for key in keys:
        if len(key) >= 6:
            text = text.replace(key, "[key]")
    return _LOGIN.sub("[key]", text)


_LOGIN = re.compile(r"(?<=://)[^/\s@\"'<>]+(?=@)")  # of an address


def cache_marked(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages with Anthropic's cache marks on system prompt, overview, and the newest message."""
    marked = {0, 1, len(messages) - 1}

    def mark(message: BaseMessage) -> BaseMessage:
        if not isinstance(message.content, str) or not message.content:
            return message
        block = {"type": "text", "text": message.content, "cache_control": {"type": "ephemeral"}}
        return message.model_copy(update={"content": [block]})

    return [mark(message) if i in marked else message for i, message in enumerate(messages)]


def _patience(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, Retryable) and error.after is not None:
        return min(error.after, LONGEST_WAIT)
    return float(wait_random_exponential(multiplier=1, max=30)(state))


def _essence(message: dict[str, Any]) -> dict[str, Any]:
    """What the endpoint is sent of a message: not its id, nor what an earlier call was told about it."""
    data = message["data"]
    return {"type": message["type"], **{k: data.get(k) for k in ("content", "tool_calls", "tool_call_id", "name")}}


def _whole(message: AIMessage) -> AIMessage:
    """The message without halves of characters, which no file and no endpoint takes."""
    told = json.dumps(message_to_dict(message), ensure_ascii=False, default=str)
    if told.isascii() or not _HALF.search(told):
        return message
    (mended,) = messages_from_dict([json.loads(_HALF.sub("\ufffd", told))])
    assert isinstance(mended, AIMessage)
    return mended


_HALF = re.compile("[\ud800-\udfff]")


def _restore(kept: Answered) -> Reply:
    (message,) = messages_from_dict([kept.reply or {}])
    assert isinstance(message, AIMessage)
    return Reply(
        message, kept.attempts, kept.seconds, kept.tokens_in, kept.tokens_out, kept.tokens_cached, kept.cost_usd
    )
