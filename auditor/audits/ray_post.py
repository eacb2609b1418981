"""Between a Ray driver, who alone writes the ledger, and the actors who make audits: each call waits for its answer."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

PARTS = ("jobs", "events", "transcripts", "calls", "spends", "answers", "meter")
MOST, PATIENCE = 64, 0.2  # calls that the driver fetches at once; seconds that it waits for one

Call = tuple[int, str, str, tuple[Any, ...], dict[str, Any]]


class Post:
    """An asynchronous actor: audits ask here, the driver fetches what was asked and answers it."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[Call] = asyncio.Queue()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = count()

    async def ask(self, part: str, method: str, args: tuple[Any, ...], more: dict[str, Any]) -> Any:
        """What the driver's `part.method(*args, **more)` gives. Raises what it raises, as text if it cannot travel."""
        number, loop = next(self._number), asyncio.get_running_loop()
        self._waiting[number] = loop.create_future()
        await self._asked.put((number, part, method, args, more))
        good, value = await self._waiting[number]
        del self._waiting[number]
        if not good:
            raise RuntimeError(value)
        return value

    async def fetch(self) -> list[Call]:
        """What was asked, in order; nothing if nobody asks for a while."""
        try:
            found = [await asyncio.wait_for(self._asked.get(), PATIENCE)]
        except TimeoutError:
            return []
        while len(found) < MOST and not self._asked.empty():
            found.append(self._asked.get_nowait())
        return found

    async def answer(self, answers: list[tuple[int, bool, Any]]) -> None:
        """Give those who wait what the driver found."""
        for number, good, value in answers:
            if number in self._waiting:
                self._waiting[number].set_result((good, value))


def answered(call: Call, parts: dict[str, Any]) -> tuple[int, bool, Any]:
    """One call, made by the driver on its own objects. What it raises goes to both sides."""
    number, part, method, args, more = call
    assert part in PARTS, part
    value = getattr(parts[part], method)(*args, **more)
    pickle.dumps(value)  # told here, not in a thread that nobody hears
    return number, True, value


class Forward:
    """Stands for a part of the driver's ledger, or for its meter, in an actor."""

    def __init__(self, ask: Callable[..., Any], part: str) -> None:
        self._ask, self._part = ask, part

    def __getattr__(self, method: str) -> Callable[..., Any]:
        return lambda *args, **more: self._ask(self._part, method, args, more)

    def __enter__(self) -> None:
        self._ask(self._part, "__enter__", (), {})

    def __exit__(self, *_error: object) -> None:
        self._ask(self._part, "__exit__", (None, None, None), {})


class FarLedger:
    """A run's ledger as an actor sees it."""

    def __init__(self, ask: Callable[..., Any], folder: Path) -> None:
        self.folder = folder
        for part in PARTS:
            setattr(self, part, Forward(ask, part))
