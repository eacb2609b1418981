"""Start the server, and let it come to its end: SIGTERM lets accepted requests finish, then the process ends."""

from __future__ import annotations

import logging
import signal
import socket
import sys
import threading
from pathlib import Path

import uvicorn

from auditor.errors import UsageError
from auditor.server.app import create_app
from auditor.server.guard import LOOPBACK, JsonLines
from auditor.server.library import Library
from auditor.server.metrics import Metrics
from auditor.server.serving import Serving

SHORTEST_KEY = 16  # characters


def read_key(file: Path | None, environment: str | None, host: str) -> str | None:
    """The API key, from a file or the environment. Raises UsageError where a key is needed and there is none."""
    key = environment
    if file is not None:
        try:
            key = file.expanduser().read_text().strip()
        except OSError as error:
            raise UsageError(f"--api-key-file {file}: {error.strerror}") from error
    if key is not None and (len(key) < SHORTEST_KEY or not key.isascii() or any(c.isspace() for c in key)):
        raise UsageError(f"the API key must have {SHORTEST_KEY} or more ASCII characters and no space")
    if key is None and host not in LOOPBACK:
        raise UsageError(f"--host {host}: others could reach the server; give --api-key-file or AUDITOR_API_KEY")
    return key


def run_server(library: Library, host: str, port: int, *, key: str | None, log_prompts: bool) -> None:
    """Serve until SIGTERM or Ctrl-C; both drain: no new connection is taken, what was accepted is answered.

    Raises UsageError if the address cannot be used, and BadModel if a model cannot be loaded.
    """
    written = logging.StreamHandler(sys.stderr)
    written.setFormatter(JsonLines())
    logger = logging.getLogger("auditor.server")
    logger.handlers, logger.propagate = [written], False
    logger.setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").handlers = [written]
    serving = Serving(library, Metrics(library), log_prompts, ready=False)
    app = create_app(serving, key)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UsageError(f"cannot listen at {host}:{port}: {error.strerror}; give another --port") from error
    port = listening.getsockname()[1]
    config = uvicorn.Config(
        app, host, port, log_config=None, access_log=False, lifespan="off", timeout_keep_alive=30, server_header=False,
    )  # fmt: skip
    server = uvicorn.Server(config)
    logger.info("serving", extra={"fields": {"host": host, "port": port, "organisms": list(library.served)}})
    problems: list[Exception] = []

    def load() -> None:
        try:
            library.warm()
            serving.ready = True
        except Exception as error:
            problems.append(error)
            server.should_exit = True

    threading.Thread(target=load).start()  # no daemon: killed inside torch, it would take the process down
    # uvicorn raises what stopped it again at its end, when the handlers are those that it found.
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[listening])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    logger.info("stopped")
    if problems:
        raise problems[0]
