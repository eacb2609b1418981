"""Threads for what blocks the event loop, work that is done once for all who ask, and clients that leave."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Hashable, Iterator
from contextlib import contextmanager
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


ALONE = 900.0  # seconds for which work that is kept when it is done goes on though nobody waits for it any more

Tell = Callable[[str], None]
"""Told of each stage as it starts, in the thread that works."""


class Doing:
    """Work on its way: how many wait for it, and the stages that it told of. To be used in the event loop."""

    def __init__(self) -> None:
        self.waiting, self.stages, self.gone = 0, list[str](), threading.Event()
        self.task: asyncio.Future[Any]
        self.alone: asyncio.TimerHandle | None = None
        self._told = asyncio.Event()

    @classmethod
    def done(cls, result: Any) -> Doing:
        """What was done before."""
        doing = cls()
        doing.task = asyncio.get_running_loop().create_future()
        doing.task.set_result(result)
        return doing

    def tell(self, stage: str) -> None:
        self.stages.append(stage)
        self._told.set()

    async def progress(self, pulse: float) -> AsyncIterator[str | None]:
        """Every stage, those that were told before first; None where nothing was told for `pulse` seconds."""
        seen = 0
        while True:
            while seen < len(self.stages):
                seen += 1
                yield self.stages[seen - 1]
            if self.task.done():
                return
            self._told.clear()
            told = asyncio.ensure_future(self._told.wait())
            try:
                ready, _ = await asyncio.wait({self.task, told}, timeout=pulse, return_when=asyncio.FIRST_COMPLETED)
            finally:
                told.cancel()
            if not ready:
                yield None


@dataclass
class Once:
    """Work by key: who asks for what is being done already waits for that. To be used in the event loop."""

    _doing: dict[Hashable, Doing] = field(default_factory=dict)

    async def get(
        self, http: HttpRequest, key: Hashable, work: Callable[..., T], *args: Any, threads: anyio.CapacityLimiter
    ) -> T:
        """`work`'s result, or what it raises. Raises ClientGone if the client leaves first.

        When nobody waits any more, no pass over a model is begun for it.
        """
        with self.joined(key, lambda _tell: work(*args), threads) as doing:
            result: T = await until_done(http, doing)
            return result

    @contextmanager
    def joined(
        self, key: Hashable, work: Callable[[Tell], Any], threads: anyio.CapacityLimiter, alone: float = 0.0
    ) -> Iterator[Doing]:
        """Wait for `work` inside, which is begun if it is not on its way.

        When nobody waits any more it is given up, at once or, once it has begun, after `alone` seconds.
        """
        doing = self._doing.get(key)
        if doing is None or doing.task.done():
            doing = self._begin(key, work, threads)
        doing.waiting += 1
        if doing.alone is not None:
            doing.alone.cancel()
        try:
            yield doing
        finally:
            doing.waiting -= 1
            if not doing.waiting and not doing.task.done():
                if alone:
                    doing.alone = asyncio.get_running_loop().call_later(alone, self._give_up, key, doing)
                else:
                    self._give_up(key, doing)

    def stop(self) -> None:
        """Give up what is on its way: the server ends."""
        for key, doing in list(self._doing.items()):
            self._give_up(key, doing)

    def _give_up(self, key: Hashable, doing: Doing) -> None:
        doing.gone.set()
        if self._doing.get(key) is doing:
            del self._doing[key]

    def _begin(self, key: Hashable, work: Callable[[Tell], Any], threads: anyio.CapacityLimiter) -> Doing:
        doing, loop = Doing(), asyncio.get_running_loop()

        def tell(stage: str) -> None:
            loop.call_soon_threadsafe(doing.tell, stage)

        def told() -> Any:
            LEFT.set(doing.gone.is_set)  # of this call alone: threads run in copies of the context
            return work(tell)

        async def run() -> Any:
            async with threads:
                if not doing.waiting:
                    raise ClientGone("who asked has left")
                return await in_thread(told, threads=anyio.CapacityLimiter(1))

        def ended(done: asyncio.Future[Any]) -> None:
            self._give_up(key, doing)
            _ = done.cancelled() or done.exception()  # perhaps nobody asks any more

        doing.task = asyncio.ensure_future(run())
        doing.task.add_done_callback(ended)
        self._doing[key] = doing
        return doing


async def until_done(http: HttpRequest, doing: Doing) -> Any:
    """What was done, or what it raises. Raises ClientGone if the client leaves first."""
    left = asyncio.ensure_future(disconnected(http))
    try:
        await asyncio.wait({doing.task, left}, return_when=asyncio.FIRST_COMPLETED)
        if not doing.task.done():
            raise ClientGone("the client left")
        return doing.task.result()
    finally:
        left.cancel()


async def computed(http: HttpRequest, work: Callable[..., T], *args: Any) -> T:
    """`work` in a thread; if the client leaves first, no pass over the model is begun for it any more: ClientGone."""
    return await Once().get(http, None, work, *args, threads=PASSES)


async def disconnected(http: HttpRequest) -> None:
    """Returns when the client has left."""
    while (await http.receive())["type"] != "http.disconnect":
        pass
