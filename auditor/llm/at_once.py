"""Several calls at once, whose results keep the order of what they are made for."""

from __future__ import annotations

import queue
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import TypeVar

from auditor.errors import AuditorError, InternalError
from auditor.ledger.database import LedgerBroken
from auditor.llm.caller import Caller
from auditor.llm.failures import EndpointUnusable

T = TypeVar("T")
R = TypeVar("R")


def at_once(
    items: Sequence[T], work: Callable[[T], R], workers: int, tell: Callable[[int], None] = lambda done: None
) -> list[R | AuditorError]:
    """`work` of each item, or the error that it ended in; `tell` is given how many are done.

    Raises EndpointUnusable, LedgerBroken and InternalError, after which no item is begun. Interrupted, it leaves at
    once: what is under way ends by itself, and what was answered is in the journal.
    """
    found, fatal = dict[int, R | AuditorError](), list[AuditorError]()
    pending: queue.SimpleQueue[int] = queue.SimpleQueue()
    stop = threading.Event()
    for place in range(len(items)):
        pending.put(place)

    def one(place: int) -> None:
        try:
            found[place] = work(items[place])
        except (LedgerBroken, EndpointUnusable) as error:
            fatal.append(error)
        except AuditorError as error:
            found[place] = error
        except Exception as error:  # a bug of ours
            fatal.append(InternalError(f"internal error: {error!r}\n{traceback.format_exc()}"))

    def run() -> None:
        while not (fatal or stop.is_set()):
            try:
                one(pending.get_nowait())
            except queue.Empty:
                return
            if not fatal:
                tell(len(found))

    threads = [threading.Thread(target=run, daemon=True) for _ in range(min(workers, len(items)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        stop.set()
    if fatal:
        raise fatal[0]
    return [found[place] for place in range(len(items))]


def all_of(items: Sequence[T], work: Callable[[T], R], caller: Caller) -> list[R]:
    """`work` of each item, as many at once as the endpoint of `caller` may be asked (one after another in process).

    Raises what the first of them ended in, once those under way have ended: their answers are in the journal.
    """
    found = at_once(items, work, caller.spec.concurrency if caller.spec else 1)
    for each in found:
        if isinstance(each, AuditorError):
            raise each
    return [each for each in found if not isinstance(each, AuditorError)]
