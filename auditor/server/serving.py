"""What all routes share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request
from fastapi.responses import StreamingResponse

from auditor.errors import AuditorError
from auditor.methods.steering import Direction
from auditor.models.local import LocalPair
from auditor.models.wire import Read
from auditor.server.library import Library, Plan
from auditor.server.metrics import Metrics
from auditor.server.waiting import DELTAS, Once, in_thread


class NotReady(AuditorError):
    """Come again when the models are loaded."""


@dataclass
class Serving:
    """What the routes share."""

    library: Library
    metrics: Metrics
    log_prompts: bool = False
    ready: bool = True
    once: Once = field(default_factory=Once)

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

    async def direction(self, http: Request, name: str, layer: int, position: int) -> Direction:
        """δ of a pair at a layer and position; read first, if need be, once for all who ask. Raises UsageError."""
        if (name, layer) not in self.library.read:
            self.library.demand_position(position)
            await self.once.get(http, ("delta", name, layer), self.library.difference, name, layer, threads=DELTAS)
        return self.library.direction(name, layer, position)

    async def plan(self, http: Request, name: str, suite: str, lens: str | None) -> Plan:
        """What a suite's evidence on a pair, or one lens' reading, is made of."""
        asked = ("lens", name, suite, lens)
        return await self.once.get(http, asked, self.library.plan, name, suite, lens, threads=DELTAS)

    async def plan_for(self, http: Request, name: str, asked: Read) -> Plan:
        """The same with a client's settings."""
        return await self.once.get(
            http, ("lens", name, asked.model_dump_json()), self.library.plan_for, name, asked, threads=DELTAS
        )

    def tell(self, http: Request, asked: Any, **more: Any) -> None:
        """Put what was asked for into the request's log line; texts only if the server was started so."""
        http.scope["told"] = {**more, **({"asked": asked.model_dump(mode="json")} if self.log_prompts else {})}


class Streamed(StreamingResponse):
    """An answer in parts; however it ends, what was held for it is let go."""

    def __init__(
        self,
        content: AsyncIterator[str] | AsyncIterator[bytes] | Iterator[bytes],
        held: AsyncExitStack,
        media_type: str,
    ) -> None:
        super().__init__(content, media_type=media_type)
        self._held = held

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async with self._held:
            await super().__call__(scope, receive, send)
