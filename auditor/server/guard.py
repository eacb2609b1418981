"""Before any route: the key, the size of a body, and what is counted and logged. Plain ASGI, so that streams stream."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException

from auditor.models.http import LOOPBACK
from auditor.models.wire import MOST_BYTES
from auditor.server.metrics import Metrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_ROUTES = ("/health", "/health/live", "/health/ready", "/docs", "/openapi.json")  # they tell nothing of the models

log = logging.getLogger("auditor.server")


class BodyTooLong(HTTPException):
    """A body of more bytes than its route reads."""

    code = "body_too_long"

    def __init__(self, most: int) -> None:
        super().__init__(413, f"a body may have {most >> 20} MiB at most here")


class Guard:
    """Wraps an application: 401 without the key, 413 for too long a body; one log line and its figures a request."""

    def __init__(self, app: App, key: str | None, metrics: Metrics | None = None) -> None:
        self._app, self._metrics = app, metrics
        self._key = key.encode() if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        begun, said = time.perf_counter(), {"status": 499, "bytes": 0}  # 499: the client left before an answer

        async def telling(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                said["status"] = message["status"]
            else:
                said["bytes"] += len(message.get("body", b""))
            await send(message)

        try:
            if self._key is None and not is_local(headers.get(b"host", b"")):
                await _refuse(telling, 403, "without a key only loopback is served", "not_loopback")
            elif not self._may_enter(scope["path"], headers):
                await _refuse(telling, 401, "an API key is needed: Authorization: Bearer KEY", "invalid_api_key")
            elif int(headers.get(b"content-length", b"0") or 0) > MOST_BYTES:
                refused = BodyTooLong(MOST_BYTES)
                await _refuse(telling, refused.status_code, refused.detail, refused.code)
            else:
                await self._app(scope, _limited(receive), telling)
        finally:
            took = time.perf_counter() - begun
            route = getattr(scope.get("route"), "path", "none")
            if self._metrics is not None:
                self._metrics.answered(route, said["status"], took)
            log.info(
                "request",
                extra={
                    "fields": {
                        "method": scope["method"], "path": scope["path"], "seconds": round(took, 4), **said,
                        "client": client_of(scope), **scope.get("told", {}),
                    }
                },
            )  # fmt: skip

    def _may_enter(self, path: str, headers: dict[bytes, bytes]) -> bool:
        if self._key is None or path in OPEN_ROUTES:
            return True
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        return hmac.compare_digest(given.strip(), self._key) and scheme.lower() == b"bearer"


def is_local(host: bytes) -> bool:
    """Whether a browser's page that calls itself something else (DNS rebinding) is kept out."""
    try:
        return urlsplit(f"//{host.decode('latin-1')}").hostname in LOOPBACK
    except ValueError:
        return False


def client_of(scope: Scope) -> str:
    """Who asks: what a client calls itself, else its address. Clients take turns."""
    named = dict(scope["headers"]).get(b"x-client", b"")[:64].decode("ascii", "replace")
    return named or (scope["client"] or ("unknown",))[0]


def _limited(receive: Receive) -> Receive:
    """The same for bodies that do not say how long they are; reading on raises BodyTooLong."""
    read = 0

    async def next_part() -> MutableMapping[str, Any]:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > MOST_BYTES:
            raise BodyTooLong(MOST_BYTES)
        return message

    return next_part


async def _refuse(send: Send, status: int, reason: str, code: str) -> None:
    body = json.dumps({"error": {"message": reason, "type": "invalid_request_error", "param": None, "code": code}})
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body.encode()})


class JsonLines(logging.Formatter):
    """One JSON object a line; prompts are in none unless a route was asked to log them."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {"time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S"), "level": record.levelname.lower(),
                  "event": record.getMessage(), **getattr(record, "fields", {})}  # fmt: skip
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)
