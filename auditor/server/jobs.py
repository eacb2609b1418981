"""From requests to rows of a live batch and back: the queue's limit, waiting, and clients that leave."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

from fastapi import Request as HttpRequest

from auditor.errors import AuditorError, TooLong, UsageError
from auditor.methods.steering import Direction
from auditor.models.generate import Request, Side, Steering
from auditor.models.local import LocalPair
from auditor.models.row import Row, likelihood
from auditor.models.worker import ClientGone
from auditor.server.guard import client_of
from auditor.server.metrics import Metrics
from auditor.server.schema import Comparison, Proof, Push
from auditor.server.waiting import disconnected

CHARACTERS = 32  # of a text for each token of the context; longer ones need not be read to be refused
MOST_WAITING = 1024  # rows in all queues; who comes later is told to come again
ROWS_A_SECOND = 10  # a guess for Retry-After, on the slow side


class QueueFull(AuditorError):
    """Come again after `wait` seconds."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} texts wait already")
        self.wait = max(1, min(60, waiting // ROWS_A_SECOND))


def rows_of(pair: LocalPair, requests: Sequence[Request]) -> list[Row]:
    """A row for each request. Raises UsageError for too many, and for texts that are far too long."""
    if len(requests) > MOST_WAITING:
        raise UsageError(f"{len(requests)} texts are asked for; one request may ask for {MOST_WAITING}")
    for request in requests:
        before = "".join(text for exchange in request.history for text in exchange)
        demand_short(pair, request.side, request.system + before + request.prompt + request.prefill)
    return [pair.row(request) for request in requests]


def demand_short(pair: LocalPair, side: Side, *prompts: str) -> None:
    """Raises TooLong for texts that need not be read to know that they are too long."""
    limit = CHARACTERS * pair.models[side].host.context
    if any(len(prompt) > limit for prompt in prompts):
        raise TooLong(f"a prompt has over {limit} characters; {pair.name} cannot read that many")


def texts_of(pair: LocalPair, rows: Sequence[Row]) -> list[str]:
    """What the rows say."""
    return [pair.said(row) for row in rows]


def start(
    pair: LocalPair, rows: Sequence[tuple[Side, Row]], http: HttpRequest, metrics: Metrics, user: str | None = None
) -> None:
    """Put rows into their hosts' queues. Raises TooLong, and QueueFull."""
    for side, row in rows:
        pair.demand_room(side, row)
    waiting = sum(line.waiting for line in pair.models[Side.BASE].host.worker.lines)
    if waiting + len(rows) > MOST_WAITING:
        raise QueueFull(waiting)
    metrics.asked([row for _, row in rows])
    client = user or client_of(http.scope)
    for host in dict.fromkeys(pair.models[side].host for side, _ in rows):
        host.decode([row for side, row in rows if pair.models[side].host is host], client)


async def ended(rows: Sequence[Row], http: HttpRequest) -> None:
    """Wait until all rows have ended. If the client leaves first they are dropped, and ClientGone is raised.

    Raises what ended a row.
    """
    ends, left = asyncio.ensure_future(_all(rows)), asyncio.ensure_future(disconnected(http))
    try:
        await asyncio.wait({ends, left}, return_when=asyncio.FIRST_COMPLETED)
        if not ends.done():
            raise ClientGone("the client left")
        ends.result()
    finally:
        leave(rows)  # those that have ended do not mind
        left.cancel()
        ends.cancel()


async def _all(rows: Sequence[Row]) -> None:
    await asyncio.gather(*(asyncio.wrap_future(row.ended) for row in rows))  # the first that breaks is told at once


def leave(rows: Sequence[Row]) -> None:
    """Nobody waits for these any more."""
    for row in rows:
        row.gone = True


def pushed(direction: Direction, push: Push) -> tuple[Steering, Proof]:
    """The steering that `push` asks for, and its proof, to which the measured shift is added later."""
    unit = direction.steering(1.0).vector.float()
    steering = Steering(push.layer, push.alpha * unit)
    digest = hashlib.sha256(unit.numpy().astype("<f4").tobytes()).hexdigest()
    asked = float(steering.vector.norm())
    proof = Proof(
        vector_sha256=digest, layer=push.layer, position=push.position, alpha=push.alpha, asked_shift=asked,
        residual_shift=0.0,
    )  # fmt: skip
    return steering, proof


def proven(proof: Proof, rows: Sequence[Row]) -> Proof:
    """`proof` with what was measured on the rows' prompts (the same prompt: they are read once)."""
    shifts = [row.shift for row in rows if row.shift is not None]
    return proof.model_copy(update={"residual_shift": sum(shifts) / len(shifts) if shifts else 0.0})


def compared(rows: Sequence[Row]) -> Comparison | None:
    """What was measured of rows that were amplified alike; None if they were not."""
    if (beside := rows[0].beside) is None:
        return None
    finetuned, base = likelihood(rows) or (None, None)
    return Comparison(
        alpha=beside.how.alpha, plausibility=beside.how.plausibility, finetuned=finetuned, base=base,
        log_ratio=None if finetuned is None or base is None else finetuned - base,
    )  # fmt: skip
