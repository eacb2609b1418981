"""Request bodies, read in a thread: a pair's vectors are megabytes of JSON, and others wait for the event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import ValidationError

from auditor.models.wire import Body
from auditor.server.guard import BodyTooLong
from auditor.server.waiting import in_thread


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


def _parsed(kind: type[Body], content: bytes) -> Body:
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise RequestValidationError([{**wrong, "loc": ("body", *wrong["loc"])} for wrong in error.errors()]) from error
