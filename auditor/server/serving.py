"""What all routes share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from auditor.models.pair import LocalPair
from auditor.server.library import Library
from auditor.server.metrics import Metrics


@dataclass
class Serving:
    """What the routes share."""

    library: Library
    metrics: Metrics
    log_prompts: bool = False
    ready: bool = True

    @asynccontextmanager
    async def pair(self, name: str) -> AsyncIterator[LocalPair]:
        """A pair that stays in memory inside; loaded first, if need be."""
        holding = self.library.using(name)
        pair = await run_in_threadpool(holding.__enter__)
        try:
            yield pair
        finally:
            holding.__exit__(None, None, None)

    def tell(self, http: Request, asked: Any, **more: Any) -> None:
        """Put what was asked for into the request's log line; texts only if the server was started so."""
        http.scope["told"] = {**more, **({"asked": asked.model_dump(mode="json")} if self.log_prompts else {})}


class Streamed(StreamingResponse):
    """An answer in parts; however it ends, what was held for it is let go."""

    def __init__(self, content: AsyncIterator[str] | Iterator[bytes], held: AsyncExitStack, media_type: str) -> None:
        super().__init__(content, media_type=media_type)
        self._held = held

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)
