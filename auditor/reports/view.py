"""`auditor view`: the runs of a folder in a browser, live; nothing can be changed from there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path

import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import HTMLResponse, Response

from auditor.reports.page import templates
from auditor.reports.shelf import Kept, Shelf
from auditor.server.guard import is_local
from auditor.server.listen import listen
from auditor.views.page import PAGES
from auditor.workspace import Workspace

HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}


def create_view(shelf: Shelf, title: str) -> FastAPI:
    """Pages over `shelf`. Only who calls it by a loopback name is answered: a page elsewhere cannot read it."""
    app = FastAPI(title="auditor view", docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def guarded(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if not is_local(request.headers.get("host", "").encode("latin-1", "replace")):
            return Response("only loopback is served", 403)
        response = await answer(request)
        response.headers.update(HEADERS)
        return response

    def kept(name: str) -> Kept | None:
        found = shelf.get(name)
        if found is None and not shelf.has(name):
            raise HTTPException(404, "there is no such run")
        return found

    @app.get("/", response_class=HTMLResponse)
    def runs() -> str:
        return _listing(title, shelf.overview())

    @app.get("/runs/{name}/", response_class=HTMLResponse)
    def run(name: str) -> str:
        found = kept(name)
        if found is not None:
            return found.html
        if problem := shelf.problem(name):
            raise HTTPException(422, problem)
        return _listing(name, [], waiting=True)

    @app.get("/runs/{name}/audits.json")
    def audits(name: str) -> Response:
        found = kept(name)
        return Response(found.index if found else "[]", media_type="application/json")

    @app.get("/runs/{name}/status.json")
    def status(name: str) -> dict[str, object]:
        kept(name)
        return shelf.status(name)

    @app.get("/runs/{name}/audit/{number}", response_class=HTMLResponse)
    def audit(name: str, number: int) -> str:
        return _there(shelf.audit(name, number))

    @app.get("/runs/{name}/organism/{number}", response_class=HTMLResponse)
    def organism(name: str, number: int) -> str:
        return _there(shelf.organism(name, number))

    return app


def _there(fragment: str | None) -> str:
    if fragment is None:
        raise HTTPException(404, "there is no such part")
    return fragment


def _listing(title: str, runs: list[dict[str, object]], *, waiting: bool = False) -> str:
    style = (PAGES / "report.css").read_text("utf-8")
    return templates().get_template("runs.html").render(
        title=title, runs=runs, waiting=waiting, style=style, every=1 if waiting else 10
    )  # fmt: skip


def serve_view(folder: Path, workspace: Workspace, cache: Path, port: int, ready: Callable[[str], None]) -> None:
    """Until Ctrl-C. `ready` is told the address. Raises UsageError if the port cannot be used."""
    listening = listen("127.0.0.1", port)
    with closing(Shelf(folder, workspace, cache)) as shelf:
        ready(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        app = create_view(shelf, str(folder))
        config = uvicorn.Config(app, log_level="warning", lifespan="off", server_header=False)
        with suppress(KeyboardInterrupt):  # uvicorn raises again what ended it
            uvicorn.Server(config).run(sockets=[listening])
