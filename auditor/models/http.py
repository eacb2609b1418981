"""How a model server is asked: patiently while it is busy, however long it computes, and never for ever."""

from __future__ import annotations

import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import closing
from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from auditor.errors import AuditorError, BadModel, TooLong, UsageError

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

PATIENCE = 900.0  # seconds for which a busy server is asked again
LONGEST_WAIT = 30.0  # seconds between two attempts
BROKEN_OFF = 3  # answers in a row that were broken off, after which it is not asked again
PULSE = 30.0  # seconds without an answer after which the server is asked whether it lives
SIGN_OF_LIFE = 20.0  # seconds in which it must say so
MISSED = 3  # such questions in a row without an answer: it is dead
UNSERVABLE, CHANGED = "unservable", "other_weights"  # codes for a pair that is not there, or no longer the same
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Unusable(UsageError):
    """The server is away, or lets nobody in by this key or to this pair: whatever else is asked would fail, too."""


class Declined(UsageError):
    """The server answers, but not to this."""


class _Later(Exception):
    """The server cannot do it now; `wait` seconds later it may."""

    def __init__(self, reason: str, wait: float, *, broken_off: bool = False) -> None:
        super().__init__(reason)
        self.wait, self.broken_off = min(wait, LONGEST_WAIT), broken_off


class Client:
    """A model server's client. No answer has a time limit, but a server that gives no sign of life is given up."""

    def __init__(self, server: str) -> None:
        """Raises UsageError if `server` is no address, nobody answers there, or the key in AUDITOR_API_KEY is none."""
        address = server.strip().rstrip("/").removesuffix("/v1")
        if not address.startswith(("http://", "https://")):
            raise UsageError(f"--server {server}: give its address, such as http://127.0.0.1:8000")
        headers = {"x-client": secrets.token_hex(8)}
        if key := os.environ.get("AUDITOR_API_KEY", "").strip():
            if not key.isascii() or any(c.isspace() for c in key):
                raise UsageError("AUDITOR_API_KEY: a key is of ASCII characters without spaces")
            headers["authorization"] = f"Bearer {key}"
        timeout = httpx.Timeout(None, connect=10)  # nothing is said before the last text is there
        try:
            self._local = httpx.URL(address).host in LOOPBACK  # no proxy leads there
            self._http = httpx.Client(base_url=address, headers=headers, timeout=timeout, trust_env=not self._local)
        except (httpx.InvalidURL, ValueError, ImportError) as error:  # of a proxy in the environment, too
            raise UsageError(f"--server {server}: {str(error).splitlines()[0]}{self._proxied()}") from error
        self._address = address
        weakref.finalize(self, self._http.close)
        self._greet()

    def close(self) -> None:
        self._http.close()

    def get(self, path: str) -> httpx.Response:
        """What is at `path`. Raises UsageError or AuditorError, as all of these do."""
        return self._patiently(self._http.build_request("GET", path))

    def post(self, path: str, body: BaseModel, *, stream: bool = False) -> httpx.Response:
        asked = self._http.build_request(
            "POST", path, content=body.model_dump_json(), headers={"content-type": "application/json"}
        )
        return self._patiently(asked, stream=stream)

    def parts(self, path: str, body: BaseModel, read: Callable[[Iterator[bytes]], Iterator[T]]) -> Iterator[T]:
        """What `read` makes of an answer that comes in parts."""
        with closing(self.post(path, body, stream=True)) as response:
            parts = read(response.iter_bytes())
            while (part := self._attended(lambda: self._whole(parts))) is not None:
                yield part

    def parsed(self, kind: type[M], response: httpx.Response) -> M:
        """The answer as a `kind`."""
        try:
            return kind.model_validate_json(response.read())
        except ValidationError as error:
            raise Unusable(f"what answers at {self._address} is no model server of this version") from error

    def _whole(self, parts: Iterator[T]) -> T | None:
        try:
            return next(parts, None)
        except (httpx.TransportError, ValueError) as error:
            raise Unusable(f"the model server at {self._address} broke off its answer: {error!r}") from error

    def _greet(self) -> None:
        try:
            self._http.get("/health/live", timeout=SIGN_OF_LIFE)
        except httpx.ReadTimeout as error:
            raise UsageError(
                f"what listens at {self._address} has not answered for {SIGN_OF_LIFE:g} s{self._proxied()}"
            ) from error
        except httpx.TransportError as error:
            raise UsageError(
                f"no model server answers at {self._address}: {str(error) or repr(error)}{self._proxied()}"
            ) from error

    def _patiently(self, asked: httpx.Request, *, stream: bool = False) -> httpx.Response:
        """The answer, asked for again while the server is busy or away for a moment."""
        deadline, broken_off = time.monotonic() + PATIENCE, 0
        while True:
            try:
                return self._attended(lambda: self._once(asked, stream))
            except _Later as error:
                broken_off = broken_off + 1 if error.broken_off else 0
                if broken_off == BROKEN_OFF or time.monotonic() + error.wait > deadline:
                    raise Unusable(str(error)) from error
                time.sleep(error.wait)

    def _once(self, asked: httpx.Request, stream: bool) -> httpx.Response:
        try:
            response = self._http.send(asked, stream=stream)
            if response.is_success:
                return response
            response.read()
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unusable(f"no model server answers at {self._address} any more: {error}") from error
        except httpx.TransportError as error:
            raise _Later(f"the model server at {self._address} went away: {error!r}", 1, broken_off=True) from error
        raise self._refusal(response)

    def _refusal(self, response: httpx.Response) -> Exception:
        try:
            told = response.json()["error"]
            reason, code, ours = str(told["message"]), told.get("code"), True
        except (ValueError, LookupError, TypeError, AttributeError):
            reason, code, ours = " ".join(response.text.split())[:200], None, False
        said = f"the model server says: {reason} (HTTP {response.status_code})" if ours else (
            f"what answers at {self._address} says HTTP {response.status_code}: {reason}{self._proxied()}"
        )  # fmt: skip
        if response.status_code in (429, 503):
            after = response.headers.get("retry-after", "1")
            return _Later(said, float(after) if after.isdigit() else 1.0)
        if code == TooLong.code:
            return TooLong(said)
        if code == BadModel.code:
            return BadModel(said)
        if response.status_code == 401:
            return Unusable(f"{said}; put its key into AUDITOR_API_KEY")
        if response.status_code in (403, 404) or code in (UNSERVABLE, CHANGED):
            return Unusable(said)
        return Declined(said) if response.status_code in (400, 409, 413, 422) else AuditorError(said)

    def _attended(self, work: Callable[[], T]) -> T:
        """`work`'s result. While it is waited for, the server is asked whether it lives."""
        result: Future[T] = Future()

        def run() -> None:
            try:
                result.set_result(work())
            except BaseException as error:
                result.set_exception(error)

        threading.Thread(target=run, daemon=True).start()  # nobody waits for it once the server is given up
        missed = 0
        while missed < MISSED:
            if wait([result], PULSE).done:
                return result.result()
            missed = 0 if self._lives() else missed + 1
        raise Unusable(f"the model server at {self._address} has given no sign of life since {MISSED} questions")

    def _lives(self) -> bool:
        try:
            self._http.get("/health/live", timeout=SIGN_OF_LIFE)
        except httpx.TransportError:
            return False
        return True

    def _proxied(self) -> str:
        """What to do about a proxy, if the environment names one that may stand between."""
        named: Any = [name for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") if _environment(name)]
        if getattr(self, "_local", False) or not named:
            return ""
        return f" ({' and '.join(named)} may stand between; NO_PROXY with its host goes round)"


def _environment(name: str) -> str:
    return os.environ.get(name) or os.environ.get(name.lower()) or ""
