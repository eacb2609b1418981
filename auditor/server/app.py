"""The model server's routes. Errors have OpenAI's shape."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import torch
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

import auditor
from auditor.errors import BadModel, TooLong, UnknownName, UsageError
from auditor.models.generate import Amplification, Side, Steering, derive_seed
from auditor.models.generate import Request as TextRequest
from auditor.models.http import CHANGED, UNSERVABLE
from auditor.models.worker import ClientGone, OutOfMemory
from auditor.server import chat, jobs
from auditor.server.bodies import BodyRoute
from auditor.server.docs import routes_page
from auditor.server.guard import BodyTooLong, Guard
from auditor.server.jobs import QueueFull, compared, ended, proven, pushed, start
from auditor.server.library import Full, Library, Otherwise, Unservable
from auditor.server.metrics import Metrics
from auditor.server.pairs import pair_routes
from auditor.server.readings import reading_routes
from auditor.server.schema import Answer, Answers, Asked, BothAsked, ChatRequest, Steered, SteeredAnswer, SteeredAnswers
from auditor.server.serving import NotReady, Serving, Streamed
from auditor.server.waiting import in_thread

log = logging.getLogger("auditor.server")


def create_app(serving: Serving, key: str | None = None) -> Guard:
    """The ASGI application. With a `key`, every route demands it, but /health and the description."""
    serving.library.worker.stepped = serving.metrics.stepped
    app = FastAPI(
        title="auditor model server", version=auditor.__version__,
        description="Base and finetuned models of several organisms, in shared batches; `steering` and `amplify` "
        "are request fields.",
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    app.router.route_class = BodyRoute
    _handle_errors(app, serving.metrics)
    _status_routes(app, serving)
    _chat_routes(app, serving)
    _text_routes(app, serving)
    reading_routes(app, serving)
    pair_routes(app, serving)
    return Guard(app, key, serving.metrics)


def _status_routes(app: FastAPI, serving: Serving) -> None:
    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """The routes, for people."""
        return HTMLResponse(routes_page(app.openapi()))

    @app.get("/health")
    @app.get("/health/live")
    async def live() -> dict[str, str]:
        """The process answers."""
        return {"status": "live"}

    @app.get("/health/ready")
    async def ready() -> JSONResponse:
        """Requests can be made: the models are loaded, and the server is not about to stop."""
        return JSONResponse({"status": "ready" if serving.ready else "loading"}, 200 if serving.ready else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Figures for Prometheus."""
        return Response(serving.metrics.page(), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """Every organism's two models."""
        return {
            "object": "list",
            "data": [
                {"id": f"{name}/{side}", "object": "model", "created": 0, "owned_by": "auditor"}
                for name in serving.library.served
                for side in Side
            ],
        }

    @app.get("/v1/models/{organism}/{side}")
    async def model(organism: str, side: Side) -> dict[str, Any]:
        """One of them."""
        _known(serving.library, organism)
        return {"id": f"{organism}/{side}", "object": "model", "created": 0, "owned_by": "auditor"}


def _chat_routes(app: FastAPI, serving: Serving) -> None:
    @app.post("/v1/chat/completions")
    async def completions(asked: ChatRequest, http: Request) -> Response:
        """OpenAI's chat completions of ORGANISM/base or ORGANISM/finetuned; `steering` and `amplify` are extensions."""
        name, _, which = asked.model.rpartition("/")
        if which not in list(Side):
            known = [f"{served}/{side}" for served in serving.library.served for side in Side]
            raise UnknownName("model", asked.model, known)
        steering = asked.steering.model_dump() if asked.steering else None
        amplify = asked.amplify.model_dump() if asked.amplify else None
        more = {"stream": bool(asked.stream), "steering": steering, "amplify": amplify}
        serving.tell(http, asked, model=asked.model, n=asked.n or 1, **more)
        async with AsyncExitStack() as held:
            pair = await held.enter_async_context(serving.pair(name))
            push = None
            if (along := asked.steering) is not None:
                push = pushed(await serving.direction(http, name, along.layer, along.position), along)
            made = await in_thread(chat.prepare, asked, Side(which), pair, push)
            chat.listen(made, serving.metrics)
            start(pair, [(Side(which), row) for row in made.rows], http, serving.metrics, asked.user)
            if asked.stream:
                held.callback(jobs.leave, made.rows)
                return Streamed(chat.stream(made), held.pop_all(), "text/event-stream")
            await ended(made.rows, http)
            return JSONResponse(await in_thread(made.answer))


def _text_routes(app: FastAPI, serving: Serving) -> None:
    @app.post("/v1/ask")
    async def ask(asked: BothAsked, http: Request) -> Answers:
        """Each prompt's answer by the base, by the finetuned model and, if asked for, amplified; all of one seed."""
        amplify = asked.amplify.model_dump() if asked.amplify else None
        serving.tell(http, asked, organism=asked.organism, prompts=len(asked.prompts), amplify=amplify)
        how: list[tuple[Side, Amplification | None]] = [(side, None) for side in Side]
        if asked.amplify is not None:
            how.append((Side.FINETUNED, asked.amplify.unpacked()))
        async with serving.pair(asked.organism) as pair:
            requests = [
                _request(asked, i, side, derive_seed(asked.seed, i), amplify=amplified)
                for i in range(len(asked.prompts))
                for side, amplified in how
            ]
            rows = await in_thread(jobs.rows_of, pair, requests)
            start(pair, list(zip([r.side for r in requests], rows, strict=True)), http, serving.metrics)
            await ended(rows, http)
            texts = await in_thread(jobs.texts_of, pair, rows)
        answers = [
            Answer(
                prompt=prompt, base=texts[at], finetuned=texts[at + 1],
                amplified=texts[at + 2] if asked.amplify else None, amplify=compared(rows[at + len(how) - 1 :][:1]),
            )
            for at, prompt in zip(range(0, len(rows), len(how)), asked.prompts, strict=True)
        ]  # fmt: skip
        return Answers(organism=asked.organism, seed=asked.seed, answers=answers)

    @app.post("/v1/steer")
    async def steer(asked: Steered, http: Request) -> SteeredAnswers:
        """Steered answers, each with the proof of what steering did."""
        push = asked.steering
        serving.tell(http, asked, organism=asked.organism, prompts=len(asked.prompts), steering=push.model_dump())
        async with serving.pair(asked.organism) as pair:
            direction = await serving.direction(http, asked.organism, push.layer, push.position)
            steering, proof = pushed(direction, push)
            requests = [
                _request(asked, i, asked.side, derive_seed(asked.seed, i, sample), steering)
                for i in range(len(asked.prompts))
                for sample in range(asked.n)
            ]
            rows = await in_thread(jobs.rows_of, pair, requests)
            start(pair, [(asked.side, row) for row in rows], http, serving.metrics)
            await ended(rows, http)
            texts = await in_thread(jobs.texts_of, pair, rows)
            parts = [slice(i * asked.n, (i + 1) * asked.n) for i in range(len(asked.prompts))]
            answers = [
                SteeredAnswer(prompt=prompt, texts=texts[part], steering=proven(proof, rows[part]))
                for prompt, part in zip(asked.prompts, parts, strict=True)
            ]
        return SteeredAnswers(organism=asked.organism, seed=asked.seed, answers=answers)


def _request(
    asked: Asked, i: int, side: Side, seed: int, steering: Steering | None = None, amplify: Amplification | None = None
) -> TextRequest:
    return TextRequest(
        asked.prompts[i], side, seed, asked.max_new_tokens, asked.temperature, asked.top_p, asked.chat, steering,
        asked.system, asked.prefill, asked.user_turn, amplify,
    )  # fmt: skip


def _known(library: Library, organism: str) -> None:
    if organism not in library.served:
        raise UnknownName("organism", organism, library.served)


def _handle_errors(app: FastAPI, metrics: Metrics) -> None:
    def said(status: int, message: str, kind: str, code: str | None = None, **headers: str) -> JSONResponse:
        body = {"error": {"message": message, "type": kind, "param": None, "code": code}}
        return JSONResponse(body, status, headers)

    def turned_away(error: Exception, reason: str, status: int, wait: int) -> JSONResponse:
        metrics.refused.labels(reason).inc()
        return said(status, str(error), "server_error", reason, **{"retry-after": str(wait)})

    handlers: dict[Any, Callable[[Request, Any], Response]] = {
        RequestValidationError: lambda _http, error: said(
            400, _first(error), "invalid_request_error", "invalid_request"
        ),
        HTTPException: lambda _http, error: said(error.status_code, str(error.detail), "invalid_request_error"),
        BodyTooLong: lambda _http, error: said(413, error.detail, "invalid_request_error", error.code),
        UnknownName: lambda _http, error: said(404, str(error), "invalid_request_error", "not_found"),
        UsageError: lambda _http, error: said(400, str(error), "invalid_request_error", "invalid_request"),
        BadModel: lambda _http, error: said(400, str(error), "server_error", error.code),
        TooLong: lambda _http, error: said(400, str(error), "invalid_request_error", error.code),
        QueueFull: lambda _http, error: turned_away(error, "queue_full", 429, error.wait),
        Full: lambda _http, error: turned_away(error, "adapters_in_use", 503, 1),
        NotReady: lambda _http, error: turned_away(error, "loading", 503, 2),
        Otherwise: lambda _http, error: said(
            409, str(error), "invalid_request_error", CHANGED if error.pair else "read_otherwise"
        ),
        Unservable: lambda _http, error: said(500, str(error), "server_error", UNSERVABLE),
        **dict.fromkeys(
            (OutOfMemory, torch.OutOfMemoryError, MemoryError),
            lambda _http, error: turned_away(error, "out_of_memory", 503, 2),
        ),
        ClientGone: lambda _http, _error: Response(status_code=499),
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)

    @app.exception_handler(Exception)
    def broken(_http: Request, error: Exception) -> JSONResponse:
        log.error("internal error", exc_info=error)
        return said(500, f"internal error: {type(error).__name__}", "server_error", "internal_error")


def _first(error: RequestValidationError) -> str:
    """What is wrong with a body, where, in one line."""
    wrong = error.errors()[0]
    where = ".".join(str(part) for part in wrong["loc"] if part != "body")
    more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
    return f"{where or 'body'}: {wrong['msg']}{more}"
