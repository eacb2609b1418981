"""What went wrong at an endpoint: worth another attempt, hopeless for this call, or for the whole run."""

from __future__ import annotations

import email.utils
import json
import time

from auditor.errors import AuditorError, UsageError
from auditor.llm.spec import ModelSpec

TRANSIENT = {408, 409, 425, 429}
LONGEST_WAIT = 60.0  # seconds between two attempts, whatever Retry-After says


class CallFailed(AuditorError):
    """This call came to nothing, after all its attempts; the audit ends, others go on."""


class EndpointUnusable(UsageError):
    """No call to this endpoint can succeed: wrong key, no such model, nobody there."""


class Malformed(AuditorError):
    """The endpoint answered something that is no chat completion."""


class Retryable(AuditorError):
    """Another attempt may succeed. `after`: seconds that the endpoint asks for, if it does."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        super().__init__(reason)
        self.after = after


def sort_out(error: Exception, spec: ModelSpec, *, answered_before: bool) -> AuditorError:
    """What `error`, raised by a provider's client, means. Providers' clients share names, not classes.

    `answered_before`: whether the endpoint ever answered; if not, being unreachable is final.
    """
    status = getattr(error, "status_code", None)
    kind = type(error).__name__
    told = " ".join(str(error).split())[:300]
    if isinstance(status, int):
        if status in TRANSIENT or status >= 500:
            return Retryable(f"HTTP {status}: {told}", retry_after(error))
        if status in (401, 403):
            return EndpointUnusable(f"the LLM endpoint refuses the key; check {spec.key_name}")
        if status == 404:
            return EndpointUnusable(f"the LLM endpoint knows no such model; check --llm and its like ({spec.name})")
        return CallFailed(f"HTTP {status}: {told}")
    if "Timeout" in kind:
        return Retryable("no answer in time")
    if "Connection" in kind or kind in ("ConnectError", "RemoteProtocolError", "ReadError"):
        if _refused(error) and not answered_before:
            url = getattr(getattr(error, "request", None), "url", "")
            where = f" ({url})" if url else ""
            return EndpointUnusable(f"the LLM endpoint cannot be reached{where}; check OPENAI_BASE_URL and the network")
        return Retryable("the connection was cut")
    garbage = (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError, IndexError, Malformed)
    if isinstance(error, garbage) or "Validation" in kind:
        return Retryable(f"not a chat completion: {told}")
    return CallFailed(f"{kind}: {told}")


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
    while error is not None:
        if type(error).__name__ == "ConnectError" or isinstance(error, ConnectionRefusedError):
            return True
        error = error.__cause__ or error.__context__
    return False
