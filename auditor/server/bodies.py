"""Request bodies, read in a thread: a pair's vectors are megabytes of JSON, and others wait for the event loop."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError

from auditor.errors import UsageError
from auditor.models.wire import Body
from auditor.server.guard import BodyTooLong
from auditor.server.waiting import in_thread

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
# Possessive, and matched at a place, not searched for: no body, however broken, is read twice.
_TO_KEY = re.compile(rb'(?:[^"]*+' + _STRING + rb'(?!\s*+:))*+[^"]*+' + _STRING + rb"\s*+:", re.S)


class BodyRoute(APIRoute):
    """A route whose body, if it takes one, reaches FastAPI as the `Body` that it asks for."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if self.body_field is None:
            return handle
        kind: type[Body] = self.body_field.field_info.annotation  # type: ignore[assignment]

        async def parsed(http: Request) -> Response:
            content = await http.body()
            if len(content) > kind.most_bytes:
                raise BodyTooLong(kind.most_bytes)
            return await handle(_Read(http, await in_thread(_parsed, kind, content)))

        return parsed


class _Read(Request):
    """A request whose body has been read."""

    def __init__(self, http: Request, asked: Body) -> None:
        super().__init__(http.scope, http.receive)
        self._body, self._asked = b"{}", asked  # FastAPI looks whether there is one

    async def json(self) -> Body:
        return self._asked


def demand_few_keys(content: bytes, most: int) -> None:
    """Raises UsageError for JSON with more than `most` keys in all its objects."""
    if content.count(b":") <= most:
        return
    at = 0
    for _ in range(most + 1):
        if (key := _TO_KEY.match(content, at)) is None:
            return
        at = key.end()
    raise UsageError(f"body: it has over {most} keys")


def _parsed(kind: type[Body], content: bytes) -> Body:
    demand_few_keys(content, kind.most_keys)
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise RequestValidationError([{**wrong, "loc": ("body", *wrong["loc"])} for wrong in error.errors()]) from error
