"""What went wrong at an endpoint: worth another attempt, hopeless for this call, or for the whole run."""

from __future__ import annotations

import email.utils
import json
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from auditor.errors import AuditorError, UsageError
from auditor.llm.proxies import hint
from auditor.llm.servers import LONGER, advice
from auditor.llm.spec import ModelSpec, has_key

TRANSIENT = {408, 409, 425, 429}
LONGEST_WAIT = 60.0  # seconds between two attempts, whatever Retry-After says
NO_TOOLS = {400, 404, 405, 422, 500, 501}  # what endpoints without tool calling answer to a call with tools


class CallFailed(AuditorError):
    """This call came to nothing, after all its attempts; the audit ends, others go on."""

    perhaps_tools = False  # whether it may be the tools that the endpoint refused


class NoTools(CallFailed):
    """The endpoint, or its model, takes no tools."""


class EndpointUnusable(UsageError):
    """No call to this endpoint can succeed: wrong key, no such model, nobody there."""

    perhaps_tools = False


class Malformed(AuditorError):
    """The endpoint answered something that is no chat completion."""


class Retryable(AuditorError):
    """Another attempt may succeed. `after`: seconds that the endpoint asks for, if it does."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after
        self.perhaps_tools = False


Failure = CallFailed | EndpointUnusable | Retryable


@dataclass(frozen=True, slots=True)
class _Answer:
    """What an endpoint said in place of a completion."""

    status: int
    body: Any
    words: str  # all of it, in small letters
    text: str  # for people
    url: str
    after: float | None

    @property
    def is_page(self) -> bool:
        return _is_page(self.words)


def sort_out(error: Exception, spec: ModelSpec, *, answered_before: bool, tools: bool = False) -> Failure:
    """What `error`, raised by a provider's client, means. Providers' clients share names, not classes.

    `answered_before`: whether the endpoint ever answered; if not, being unreachable is final. `tools`: whether some
    were offered.
    """
    url = _url(error, spec)
    status = next(_statuses(error), None)
    if status is not None:
        return _meaning(_answer(error, status, url), spec, tools=tools)
    kinds, told = [type(e).__name__ for e in _chain(error)], _shown(str(error))
    if any("Timeout" in kind for kind in kinds):
        return Retryable(f"no answer in time{hint(url)}")
    if any("Connect" in kind or kind in _CUT for kind in kinds):
        if _refused(error) and not answered_before:
            why = _shown(str(list(_chain(error))[-1]))
            return EndpointUnusable(
                f"the LLM endpoint cannot be reached ({url}): {why}; is it started? check base_url or OPENAI_BASE_URL, "
                f"and the network{hint(url)}"
            )
        return Retryable(f"the connection was cut{hint(url)}")
    if isinstance(error, Malformed) and not answered_before:
        what = "a web page" if _is_page(told.lower()) else f"something else ({told[:80]!r})"
        return _no_such_place(f"answers with {what}", url)
    if isinstance(error, _GARBAGE) or any("Validation" in kind for kind in kinds):
        return Retryable(f"not a chat completion: {told}")
    return CallFailed(f"{kinds[0]}: {told}")


_CUT = ("RemoteProtocolError", "ReadError", "WriteError", "ProxyError")
_GARBAGE = (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, IndexError, Malformed)
_CONTEXT = re.compile(
    r"context[_ ](length|window|size)|maximum context|too many (input )?tokens|prompt is too long|request too large"
)
_FLAGGED = re.compile(
    r"flagged|moderation|content[_ ](filter|policy|management)|responsibleai|data_inspection|safety (system|filter)"
)
_TOOLS = re.compile(
    r"\btools?\b|tool[_ -](choice|use|call)|function[_ ]call|\bfunctions?\b|no endpoints found that|--jinja"
    r"|roles? must alternate|unexpected (message )?role|chat[_ ]template|only user, system and assistant roles"
)
_TEMPLATE = re.compile(r"jinja|system role not supported|only user and assistant roles")
_SPENT = re.compile(
    r"insufficient[_ ](quota|credit|balance|funds)|credit balance|exceeded your current quota|billing|payment"
    r"|(key|spending|budget) limit|out of credits"
)
_SOON = re.compile(r"(retry|try again) in|per[-_ ]?minute|retrydelay")
_DAILY = re.compile(r"per[-_ ]?day|daily")
_REGION = re.compile(r"country|territor|unsupported_country|(region|location)\W.*not (supported|available)")
_KEY = re.compile(
    r"(invalid|incorrect|wrong|expired)\W+(x-)?api[ _-]?key|api[ _-]?key\W+(is )?(not valid|invalid)|invalid_api_key"
)
_MODEL = re.compile(
    r"model.{0,80}(not found|not exist|not available|not supported|no access)|model_not_found|not a valid model"
    r"|no models loaded|(no such|unknown|invalid|unsupported) model|no endpoints found for|deployment.{0,40}not exist"
)
_PLACE = re.compile(r"\b(url|path|route|page|resource|method)\b|^\W*(detail\W+)?not found\W*$")
_OPTION = re.compile(
    r"unsupported|unrecognized|not (supported|permitted|allowed)|unknown|extra|invalid|does not support"
)
_FIELDS = {
    "temperature": ("temperature",), "max_tokens": ("max_tokens", "max_completion_tokens"),
    "effort": ("reasoning_effort", "reasoning.effort", "support thinking"),
}  # fmt: skip


def _meaning(said: _Answer, spec: ModelSpec, *, tools: bool) -> Failure:
    status, words = said.status, said.words
    told = f"HTTP {status}: {said.text}{advice(words)}"
    if _CONTEXT.search(words):
        return CallFailed(f"{told}; {LONGER}" if spec.is_compatible else told)
    if status in (400, 403, 422, 451) and _FLAGGED.search(words):
        return CallFailed(f"the endpoint's moderation refused what it was sent ({told})")
    if tools and status in NO_TOOLS and _TOOLS.search(words):
        return NoTools(told)
    if status in (400, 500) and _TEMPLATE.search(words):
        return _unclear(CallFailed(told), said, tools=tools)
    if status == 402 or (status in (400, 403, 429) and _is_spent(said)):
        return EndpointUnusable(f"the LLM endpoint wants to be paid first ({told}); top up, then --resume")
    if status == 429 and _DAILY.search(words) and not _SOON.search(words):
        return EndpointUnusable(f"the LLM endpoint's daily limit is reached ({told}); go on later with --resume")
    if status in (400, 403, 451) and _REGION.search(words):
        return EndpointUnusable(f"the LLM endpoint does not serve where you are ({told}); use another provider")
    if status == 401 or (status in (400, 403) and _KEY.search(words)):
        if not has_key(spec):
            return EndpointUnusable(f"the LLM endpoint wants a key; put it in {spec.key_name}, or name one by key_env")
        return EndpointUnusable(f"the LLM endpoint refuses the key; check {spec.key_name}")
    if said.is_page and status in (400, 403, 404, 405):
        return _no_such_place(f"answers HTTP {status} with a web page", said.url)
    if status in (400, 403, 404, 422) and _MODEL.search(words):
        return _no_such_model(said, spec)
    if status == 403:
        return EndpointUnusable(f"the LLM endpoint refuses access ({told}); check what {spec.key_name} may do")
    if status == 405 or (status == 404 and (_PLACE.search(words) or not _message(said.body))):
        return _no_such_place(f"answers HTTP {status}", said.url)
    if status == 404:
        return _unclear(_no_such_model(said, spec), said, tools=tools)
    if status in (400, 422) and (option := _refused_option(words, spec)):
        return EndpointUnusable(f"the LLM endpoint refuses the option {option} ({told}); leave it out of {spec.name}?…")
    if status in TRANSIENT or status >= 500:
        front = hint(said.url) if status in (502, 503, 504) else ""
        return _unclear(Retryable(told + front, said.after), said, tools=tools)
    return _unclear(CallFailed(told), said, tools=tools)


def _unclear(failure: Failure, said: _Answer, *, tools: bool) -> Failure:
    """A failure whose reason may be the tools: an endpoint without them does not always say so."""
    failure.perhaps_tools = tools and said.status in NO_TOOLS
    return failure


def _is_spent(said: _Answer) -> bool:
    """Whether no money is left: some endpoints say "quota" of what is there again in a minute."""
    soon = said.status == 429 and (said.after is not None or _SOON.search(said.words))
    return "insufficient_quota" in said.words or bool(_SPENT.search(said.words) and not soon)


def _no_such_model(said: _Answer, spec: ModelSpec) -> EndpointUnusable:
    return EndpointUnusable(
        f"the LLM endpoint knows no such model; check --llm and its like ({spec.name}: {said.text[:120]})"
        f"{advice(said.words)}"
    )


def _no_such_place(does: str, url: str) -> EndpointUnusable:
    return EndpointUnusable(
        f"no chat completions at {url}: it {does}; check base_url, which mostly ends in /v1{hint(url)}"
    )


def _refused_option(words: str, spec: ModelSpec) -> str:
    given = [name for name in _FIELDS if getattr(spec, name) is not None]
    named = (name for name in given if any(field in words for field in _FIELDS[name]))
    return next(named, "") if _OPTION.search(words) else ""


def _answer(error: Exception, status: int, url: str) -> _Answer:
    body = next(filter(None, (getattr(e, "body", None) for e in _chain(error))), None)
    message = _message(body)
    text = _shown(
        _with_reason(message, body) or (json.dumps(body) if isinstance(body, (dict, list)) else str(body or error))
    )
    everything = f"{body if isinstance(body, str) else json.dumps(body, default=str)} {message}" if body else str(error)
    return _Answer(status, body, everything.lower(), text, url, retry_after(error))


def _message(body: Any) -> str:
    """The message of an error's body, wherever it stands in it."""
    while isinstance(body, dict) and isinstance(body.get("error"), dict):
        body = body["error"]
    found = body.get("message") if isinstance(body, dict) else None
    if isinstance(found, str) and found.startswith('{"error"'):  # Ollama hands on what its llama-server said
        with suppress(ValueError):
            return _message(json.loads(found)) or found
    if isinstance(found, str) and (start := found.find("Jinja Exception: ")) >= 0:  # the template's source is before it
        return found[start:]
    return found if isinstance(found, str) else ""


def _with_reason(message: str, body: Any) -> str:
    """OpenRouter's message, and beside it what the model's provider said."""
    told = body.get("metadata") if isinstance(body, dict) else None
    if not isinstance(told, dict) or not isinstance(told.get("raw"), str):
        return message
    return f"{message} ({told.get('provider_name')}: {told['raw']})"


def _statuses(error: BaseException) -> Iterator[int]:
    for e in _chain(error):
        for found in (getattr(e, "status_code", None), getattr(getattr(e, "response", None), "status_code", None),
                      getattr(e, "code", None)):  # fmt: skip
            if isinstance(found, int) and 400 <= found < 600:
                yield found


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _url(error: Exception, spec: ModelSpec) -> str:
    try:
        return str(error.request.url)  # type: ignore[attr-defined]
    except (AttributeError, RuntimeError):  # httpx raises where there was none
        return spec.endpoint


def _shown(text: str) -> str:
    return " ".join(text.split())[:300]


def _is_page(words: str) -> bool:
    return words.lstrip().startswith(("<!doctype", "<html", "<head", "<?xml"))


def retry_after(error: Exception, now: float | None = None) -> float | None:
    """Seconds of the reply's Retry-After header, a number or a date; None without one."""
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        date = email.utils.parsedate_tz(value)
        if date is None:
            return None
        return max(0.0, email.utils.mktime_tz(date) - (time.time() if now is None else now))


def _refused(error: BaseException | None) -> bool:
    """Whether no connection was made at all, rather than one cut off."""
    return any(type(e).__name__ == "ConnectError" or isinstance(e, ConnectionRefusedError) for e in _chain(error))
