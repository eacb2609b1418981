"""Start the server, and let it come to its end: SIGTERM lets accepted requests finish, then the process ends."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import uvicorn

from auditor.errors import UsageError
from auditor.models.http import LOOPBACK
from auditor.server.app import create_app
from auditor.server.guard import JsonLines
from auditor.server.library import Library
from auditor.server.listen import listen
from auditor.server.metrics import Metrics
from auditor.server.serving import Serving

SHORTEST_KEY = 16  # characters
ONE_MOMENT = 1.0  # seconds in which several signals are one: a group's, and its leader's, say

log = logging.getLogger("auditor.server")


def read_key(file: Path | None, environment: str | None, host: str) -> str | None:
    """The API key, from a file or the environment. Raises UsageError where a key is needed and there is none."""
    key, where = (environment or "").strip() or None, "AUDITOR_API_KEY"
    if file is not None:
        where = f"--api-key-file {file}"
        try:
            key = file.expanduser().read_text("utf-8").strip()
        except OSError as error:
            raise UsageError(f"{where}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{where}: is no text") from error
    if key is not None and (len(key) < SHORTEST_KEY or not key.isascii() or any(c.isspace() for c in key)):
        raise UsageError(f"{where}: the API key must have {SHORTEST_KEY} or more ASCII characters and no space")
    if key is None and host not in LOOPBACK:
        raise UsageError(f"--host {host}: others could reach the server; give --api-key-file or AUDITOR_API_KEY")
    return key


class _Server(uvicorn.Server):
    """The first signal lets accepted requests finish; a second one, not of the same moment, ends the process."""

    told: float | None = None  # when the first one came

    def __init__(self, config: uvicorn.Config, drained: Callable[[], None]) -> None:
        super().__init__(config)
        self._drained = drained

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        self._drained()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: uvicorn would take them later than who waits for the log's first line sends one, and raise what
        stopped it once more at its end.
        """
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.told is None:
            self.told = time.monotonic()
            super().handle_exit(sig, frame)  # once only: at a SIGINT behind a SIGTERM it would cut the requests off
        elif time.monotonic() - self.told > ONE_MOMENT:
            log.info("stopped at once")
            os._exit(128 + sig)  # threads in torch would be waited for


def run_server(library: Library, host: str, port: int, *, key: str | None, log_prompts: bool) -> None:
    """Serve until SIGTERM or Ctrl-C; both drain: no new connection is taken, what was accepted is answered. A second
    signal ends the process at once.

    Raises UsageError if the address cannot be used, and BadModel if a model cannot be loaded.
    """
    listening = listen(host, port)
    port = listening.getsockname()[1]
    written = logging.StreamHandler(sys.stderr)
    written.setFormatter(JsonLines())
    log.handlers, log.propagate = [written], False
    log.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").handlers = [written]
    serving = Serving(library, Metrics(library), log_prompts, ready=False)
    app = create_app(serving, key)
    config = uvicorn.Config(
        app, host, port, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=30, server_header=False,
    )  # fmt: skip
    server = _Server(config, serving.once.stop)  # what nobody waits for any more is not waited for
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
    log.info("serving", extra={"fields": {"host": host, "port": port, "organisms": list(library.served)}})
    problems: list[Exception] = []

    def load() -> None:
        try:
            library.warm(lambda: not server.should_exit)
            serving.ready = not server.should_exit
        except Exception as error:
            problems.append(error)
            server.should_exit = True

    threading.Thread(target=load).start()  # no daemon: killed inside torch, it would take the process down
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    log.info("stopped")
    if problems:
        raise problems[0]
