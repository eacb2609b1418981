"""The one thread in which models run: rows are decoded together, and other jobs are done between two steps."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

import torch

from auditor.errors import AuditorError
from auditor.models.row import Row

T = TypeVar("T")

ROWS = 128  # decoded together
PREFILL_TOKENS = 4096  # of one admission, so that those who decode do not wait for long
LINGER = 10  # looks for work, TICK seconds apart, after which an idle thread ends
TICK = 0.05


class ClientGone(AuditorError):
    """Nobody waits for the answer any more."""


LEFT: ContextVar[Callable[[], bool]] = ContextVar("LEFT", default=lambda: False)  # whether who asks has left


class OutOfMemory(AuditorError):
    """The device has no room for what was asked; the models are still there."""


class Batch(Protocol):
    """Rows that are decoded together, and that others may join: `LiveBatch`, or `VllmBatch`."""

    rows: list[Row]
    torn: bool  # an admission or a step was cut off in the middle: the rows' states are lost

    @property
    def nbytes(self) -> int:
        """Bytes of the keys and values."""
        ...

    def has_room(self, more: Sequence[Row]) -> bool:
        """Whether memory has room for `more` rows, too."""
        ...

    def admit(self, rows: Sequence[Row]) -> int:
        """Let `rows` join, and say their first tokens; how many rows got a token."""
        ...

    def step(self) -> int:
        """One more token for every row, those that end leave; how many rows got one."""
        ...

    def drop(self, rows: Sequence[Row]) -> None:
        """Let rows leave that nobody waits for any more."""
        ...

    def clear(self) -> None:
        """Forget every row."""
        ...


class Line:
    """Rows that wait for a place in one live batch; clients take turns."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._waiting: OrderedDict[str, deque[Row]] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, rows: Sequence[Row], client: str) -> None:
        if rows:
            with self._lock:
                self._waiting.setdefault(client, deque()).extend(rows)

    @property
    def waiting(self) -> int:
        with self._lock:
            return sum(map(len, self._waiting.values()))

    @property
    def busy(self) -> bool:
        return bool(self._waiting or self.batch.rows)

    def advance(self) -> int:
        """Let rows leave and join, or else make a step; how many rows got a token.

        What breaks ends the rows that it broke, and no others.
        """
        chosen: list[Row] = []
        try:
            gone = [row for row in self.batch.rows if row.gone]
            if gone:
                self.batch.drop(gone)
            self._choose(chosen)
            return self._admit(chosen) if chosen else self._step()
        except BaseException as error:  # what mends a broken step broke, too: nobody may wait for ever
            self.fail(error, chosen)
            raise

    def _step(self) -> int:
        if not self.batch.rows:
            return 0
        try:
            return self.batch.step()
        except Exception as error:
            self.batch.torn = True  # wherever it broke off: every row took part
            self._recover([], error)
            return 0

    def _admit(self, rows: Sequence[Row]) -> int:
        """Let rows join, together, or one by one if that failed: what is wrong with one is not the others' fault."""
        try:
            return self.batch.admit(rows)
        except Exception as error:
            if self.batch.torn or len(rows) == 1:
                self._recover(rows, error)
                return 0
        return sum(self._admit([row]) for row in rows)

    def fail(self, error: BaseException, joining: Sequence[Row] = ()) -> None:
        """End every row: those that wait, decode, or are `joining`."""
        with self._lock:
            waiting = [row for rows in self._waiting.values() for row in rows]
            self._waiting.clear()
        broken = [*joining, *waiting, *self.batch.rows]
        with suppress(Exception):
            self.batch.clear()  # first: who hears of it may ask again at once
        for row in broken:
            row.fail(error)

    def _recover(self, joining: Sequence[Row], error: Exception) -> None:
        """End `joining`, and everything in the batch if its state was lost too."""
        told = out_of_memory(error) or error
        broken = [*joining, *self.batch.rows] if self.batch.torn else joining
        try:
            if self.batch.torn:
                self.batch.clear()
        finally:
            for row in broken:
                row.fail(told)
        if told is not error and torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _choose(self, chosen: list[Row]) -> None:
        """Put rows that may join now into `chosen`, one client's after another's; none until a quarter is free."""
        free = ROWS - sum(row.places for row in self.batch.rows if not row.follows)
        with self._lock:
            waiting = sum(map(len, self._waiting.values()))
            if not waiting or free < min(waiting, ROWS // 4):
                return
            while self._waiting and (taken := sum(row.places for row in chosen)) < free:
                client, rows = next(iter(self._waiting.items()))
                joined = [*chosen, rows[0]]
                tokens = (taken + rows[0].places) * max(len(row.prompt) for row in joined)
                has_room = self.batch.has_room(joined)
                if (chosen and tokens > PREFILL_TOKENS) or (not has_room and (chosen or self.batch.rows)):
                    break
                row = rows.popleft()
                self._waiting.pop(client)
                if rows:
                    self._waiting[client] = rows  # at the end: the others' turn
                if row.gone:
                    row.close()
                elif not has_room:
                    row.fail(OutOfMemory("there is no memory for so long a text"))
                else:
                    chosen.append(row)


class Worker:
    """Runs the models of a process. Every job of theirs is done in its thread, so that none needs a lock."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self.lines: list[Line] = []
        self.stepped: Callable[[int], None] = lambda rows: None  # told how many rows got a token
        self._thread: threading.Thread | None = None

    def open(self, batch: Batch) -> Line:
        """A line for `batch`, which from now on is advanced."""
        line = Line(batch)
        self.lines.append(line)
        return line

    def call(self, job: Callable[[], T]) -> T:
        """`job`'s result, once it was its turn. Raises what it raises, and ClientGone once `LEFT` is true."""
        if threading.current_thread() is self._thread:
            return job()
        left = LEFT.get()

        def wanted() -> T:
            if left():
                raise ClientGone("who asked has left")
            return job()

        future: Future[T] = Future()
        with self._changed:
            self._awake()
            self._jobs.append((wanted, future))
        return future.result()

    def decode(self, line: Line, rows: Sequence[Row], client: str = "") -> None:
        """Let `rows` be decoded; each tells by its `ended` when it is."""
        with self._changed:
            self._awake()
            line.put(rows, client)

    def wait(self, rows: Sequence[Row]) -> None:
        """Until all `rows` have ended, or one broke: raises what broke it, at once."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("the thread that decodes cannot wait for what it is to decode")
        for ended in wait([row.ended for row in rows], return_when=FIRST_EXCEPTION).done:
            ended.result()

    def _awake(self) -> None:
        """See to it that there is a thread; before anything is put in its way. Raises if none can be started."""
        if self._thread is None or not self._thread.is_alive():  # after a fork it is not
            # Not a daemon: a thread that is killed inside torch takes the process down with it.
            thread = threading.Thread(target=_run, args=(weakref.ref(self), self._changed), name="models")
            thread.start()
            self._thread = thread
        self._changed.notify_all()

    def _fail(self, error: BaseException) -> None:
        """The thread ends: so does everything that waits for it."""
        with self._changed:  # who comes meanwhile waits for the next thread, and is none of these
            jobs, self._jobs = self._jobs, deque()
            for _, future in jobs:
                future.set_exception(error)
            for line in self.lines:
                line.fail(error)
            self._thread = None

    @property
    def _busy(self) -> bool:
        return bool(self._jobs) or any(line.busy for line in self.lines)

    def _turn(self) -> None:
        """One job that waits, if any, and one step of every line."""
        with self._changed:
            job = self._jobs.popleft() if self._jobs else None
        if job is not None:
            _do(*job)
        for line in self.lines:
            try:
                rows = line.advance()
            except Exception:  # its rows have been told
                continue
            if rows:
                self.stepped(rows)


@torch.inference_mode()
def _run(me: weakref.ref[Worker], changed: threading.Condition) -> None:
    """The thread. While it has nothing to do it holds no models: nobody but their users keeps them in memory."""
    main, idle = threading.main_thread(), 0
    while (worker := me()) is not None:
        with changed:
            if not worker._busy:
                if idle == LINGER or not main.is_alive():
                    worker._thread = None
                    return
                idle += 1
                del worker
                changed.wait(TICK)
                continue
        idle = 0
        try:
            worker._turn()
        except BaseException as error:
            worker._fail(error)
            raise


def _do(job: Callable[[], Any], future: Future[Any]) -> None:
    try:
        future.set_result(job())
    except BaseException as error:
        future.set_exception(out_of_memory(error) or error)


def out_of_memory(error: BaseException, advice: str = "ask for fewer or shorter texts at once") -> OutOfMemory | None:
    """`error` in our words, with what to do, if it says that memory ran out, on a GPU or not."""
    said = str(error).lower()
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)
    ):
        return OutOfMemory(f"out of memory: {advice}")
    return None
