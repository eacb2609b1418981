"""Threads for what blocks the event loop, work that is done once for all who ask, and clients that leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import anyio
import anyio.to_thread
from fastapi import Request as HttpRequest

from auditor.models.worker import LEFT, ClientGone

T = TypeVar("T")

# What waits for forward passes has threads of its own, so that the rest never waits; what waits for many of them
# (δ: tens of seconds; a whole sheet: minutes) takes none from what waits for few.
QUICK, PASSES, DELTAS, SHEETS = (anyio.CapacityLimiter(threads) for threads in (32, 8, 4, 2))


async def in_thread(work: Callable[..., T], *args: Any, threads: anyio.CapacityLimiter = QUICK) -> T:
    """`work` in one of `threads`."""
    return await anyio.to_thread.run_sync(work, *args, limiter=threads)


@dataclass(eq=False)
class _Doing:
    """Work on its way, and how many wait for it."""

    task: asyncio.Future[Any]
    gone: threading.Event
    waiting: int = 0


@dataclass
class Once:
    """Work by key: who asks for what is being done already waits for that. To be used in the event loop."""

    _doing: dict[Hashable, _Doing] = field(default_factory=dict)

    async def get(
        self, http: HttpRequest, key: Hashable, work: Callable[..., T], *args: Any, threads: anyio.CapacityLimiter
    ) -> T:
        """`work`'s result, or what it raises. Raises ClientGone if the client leaves first.

        When nobody waits any more, no pass over a model is begun for it.
        """
        doing = self._doing.get(key)
        if doing is None:
            doing = self._doing[key] = _begin(work, *args, threads=threads)
        doing.waiting += 1
        left = asyncio.ensure_future(disconnected(http))
        try:
            await asyncio.wait({doing.task, left}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.task.done():
                raise ClientGone("the client left")
            result: T = doing.task.result()
            return result
        finally:
            left.cancel()
            doing.waiting -= 1
            if doing.task.done() or not doing.waiting:
                doing.gone.set()
                if self._doing.get(key) is doing:
                    del self._doing[key]


def _begin(work: Callable[..., T], *args: Any, threads: anyio.CapacityLimiter) -> _Doing:
    gone = threading.Event()

    def told() -> T:
        if gone.is_set():
            raise ClientGone("who asked has left")
        LEFT.set(gone.is_set)  # of this call alone: threads run in copies of the context
        return work(*args)

    task = asyncio.ensure_future(in_thread(told, threads=threads))
    task.add_done_callback(lambda done: done.cancelled() or done.exception())  # perhaps nobody asks any more
    return _Doing(task, gone)


async def computed(http: HttpRequest, work: Callable[..., T], *args: Any) -> T:
    """`work` in a thread; if the client leaves first, no pass over the model is begun for it any more: ClientGone."""
    return await Once().get(http, None, work, *args, threads=PASSES)


async def disconnected(http: HttpRequest) -> None:
    """Returns when the client has left."""
    while (await http.receive())["type"] != "http.disconnect":
        pass
