"""What all routes share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from fastapi import Request
from fastapi.responses import StreamingResponse

from auditor.errors import AuditorError
from auditor.models.pair import LocalPair
from auditor.server.library import Library
from auditor.server.metrics import Metrics

T = TypeVar("T")

_QUICK, _SLOW = anyio.CapacityLimiter(32), anyio.CapacityLimiter(8)


async def in_thread(work: Callable[..., T], *args: Any, slow: bool = False) -> T:
    """`work` in a thread; what takes forward passes (`slow`) has a few of its own, so that the rest never waits."""
    return await anyio.to_thread.run_sync(work, *args, limiter=_SLOW if slow else _QUICK)


class NotReady(AuditorError):
    """Come again when the models are loaded."""


@dataclass
class Serving:
    """What the routes share."""

    library: Library
    metrics: Metrics
    log_prompts: bool = False
    ready: bool = True

    @asynccontextmanager
    async def pair(self, name: str) -> AsyncIterator[LocalPair]:
        """A pair that stays in memory inside; loaded first, if need be. Raises NotReady."""
        if not self.ready:
            raise NotReady("the models are being loaded")
        holding = self.library.using(name)
        pair = await in_thread(holding.__enter__)
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
