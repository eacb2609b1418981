"""What lenses read in a pair, by name: as JSON, as lines while it is computed, and as what a `RemotePair` takes."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from safetensors.torch import save

from auditor.errors import AuditorError
from auditor.evidence.mapping import Evidence
from auditor.methods.found import Differences
from auditor.models import wire
from auditor.server.library import Plan
from auditor.server.serving import Serving, Streamed
from auditor.server.waiting import ALONE, SHEETS, Doing, in_thread, until_done

log = logging.getLogger("auditor.server")

PULSE = 10.0  # seconds without a new stage after which a stream says that it is still at the last one
LINES, BINARY = "application/x-ndjson", "application/octet-stream"


def reading_routes(app: FastAPI, serving: Serving) -> None:
    async def told(http: Request, organism: str, suite: str, lens: str | None = None) -> Response:
        """As JSON when all is read; or as lines, if the client takes them, each stage one as it starts."""
        async with AsyncExitStack() as held:
            await held.enter_async_context(serving.pair(organism))
            plan = await serving.plan(http, organism, suite, lens)
            if LINES in http.headers.get("accept", ""):
                doing = await _joined(serving, held, organism, plan)
                return Streamed(_lines(doing, organism), held.pop_all(), LINES)
            found = await _found(serving, http, organism, plan)
            return JSONResponse(await in_thread(found.to_json))

    @app.get("/v1/evidence/{organism}")
    async def evidence(organism: str, http: Request, suite: str = "quickstart") -> Response:
        """What the suite's lenses read in the pair; computed at the first call, which takes minutes, then kept.

        With `Accept: application/x-ndjson` a line for each stage as it starts, and the evidence in the last one.
        """
        return await told(http, organism, suite)

    @app.get("/v1/evidence/{organism}/deltas")
    async def deltas(organism: str, http: Request, suite: str = "quickstart") -> Response:
        """δ (k, d_model) for each layer of the evidence, as a safetensors file."""
        async with serving.pair(organism):
            plan = await serving.plan(http, organism, suite, "differences")
            found = (await _found(serving, http, organism, plan)).reading("differences", Differences)
        data = save({str(at.layer): found.difference(at.layer).delta for at in found.layers})
        return Response(data, media_type=BINARY)

    @app.get("/v1/evidence/{organism}/{lens}")
    async def reading(organism: str, lens: str, http: Request, suite: str = "quickstart") -> Response:
        """What one lens reads in the pair, with what it needs; computed at the first call, then kept.

        With `Accept: application/x-ndjson` a line for each stage as it starts, and the evidence in the last one.
        """
        return await told(http, organism, suite, lens)

    @app.post("/v1/pairs/{name}/reading")
    async def read(name: str, asked: wire.Read, http: Request) -> Response:
        """What one lens reads with the client's settings: stages as they start, then JSON and arrays; 409 where the
        server would read it otherwise.
        """
        serving.tell(http, asked, organism=name, lens=asked.lens)
        async with AsyncExitStack() as held:
            await held.enter_async_context(serving.pair(name))
            plan = await serving.plan_for(http, name, asked)
            doing = await _joined(serving, held, name, plan)
            return Streamed(_frames(doing, asked.lens), held.pop_all(), BINARY)


async def _found(serving: Serving, http: Request, name: str, plan: Plan) -> Evidence:
    """A pair's evidence, computed once for all who ask, by whatever name, unless it is in the cache."""
    async with AsyncExitStack() as held:
        found: Evidence = await until_done(http, await _joined(serving, held, name, plan))
        return found.called(name)


async def _joined(serving: Serving, held: AsyncExitStack, name: str, plan: Plan) -> Doing:
    """The evidence on its way, which goes on for a while if nobody waits for it any more: others may ask for it."""
    kept = await in_thread(serving.library.kept, name, plan)
    if kept is not None:
        return Doing.done(kept)
    work = partial(serving.library.evidence, name, plan)
    return held.enter_context(serving.once.joined(("sheet", plan.key), work, SHEETS, ALONE))


async def _lines(doing: Doing, name: str) -> AsyncIterator[str]:
    """One JSON object a line: stages with the seconds so far, then the evidence, or an error."""
    begun, last = time.monotonic(), "waiting"
    async for stage in doing.progress(PULSE):
        last = stage or last
        yield json.dumps({"stage": last, "seconds": round(time.monotonic() - begun, 1)}) + "\n"
    try:
        found = doing.task.result().called(name)
        yield await in_thread(lambda: json.dumps({"evidence": found.to_json()}, ensure_ascii=False) + "\n")
    except Exception as error:
        yield json.dumps({"error": {"message": str(_told(error))}}) + "\n"


async def _frames(doing: Doing, lens: str) -> AsyncIterator[bytes]:
    """The same as frames, with one reading and its arrays."""
    async for stage in doing.progress(PULSE):
        yield wire.frame({wire.STAGE: wire.spelled(stage or "")})
    try:
        yield await in_thread(_framed, doing.task.result(), lens)
    except Exception as error:
        yield wire.framed_error(_told(error))


def _told(error: Exception) -> AuditorError:
    """What may be told of it: the status has been sent."""
    if isinstance(error, AuditorError):
        return error
    log.error("internal error", exc_info=error)
    return AuditorError(f"internal error: {type(error).__name__}")


def _framed(found: Evidence, lens: str) -> bytes:
    if lens in found.failed:
        return wire.frame({wire.FAILED: wire.spelled(found.failed[lens])})
    reading, cost = found[lens], found.costs[lens]
    told = json.dumps({"reading": reading.model_dump(mode="json"), "cost": cost.model_dump()})
    return wire.frame({wire.READING: wire.spelled(told), **wire.beside(reading.arrays)})
