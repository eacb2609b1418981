"""The methods of a pair, for `RemotePair`: everything that the lens and plugins may do with one, over HTTP."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from itertools import chain
from pathlib import Path

import torch
from fastapi import FastAPI, Request, Response

from auditor.errors import AuditorError, UsageError
from auditor.models import wire
from auditor.models.generate import Side
from auditor.models.local import LocalPair
from auditor.models.row import Row, likelihood
from auditor.models.tokens import plain_ids
from auditor.server import jobs
from auditor.server.jobs import ended, start
from auditor.server.serving import Serving, Streamed
from auditor.server.waiting import computed, in_thread

BINARY = "application/octet-stream"


def pair_routes(app: FastAPI, serving: Serving) -> None:
    """What `RemotePair` asks for, a route for each of a pair's methods."""
    _text_routes(app, serving)
    _tensor_routes(app, serving)
    _run_routes(app, serving)


def _text_routes(app: FastAPI, serving: Serving) -> None:
    @app.get("/v1/pairs")
    async def pairs() -> wire.Pairs:
        """The pairs that are served, and what they are made of."""
        served = serving.library.served.values()
        return wire.Pairs([wire.PairNamed(name=s.name, base=s.base, finetuned=s.finetuned) for s in served])

    @app.get("/v1/pairs/{name}")
    async def info(name: str) -> wire.PairInfo:
        """A pair's sizes, its fingerprint, and its tokenizer's files."""
        async with serving.pair(name) as pair:
            return await in_thread(_info, serving, name, pair)

    @app.post("/v1/pairs/{name}/generate")
    async def generate(name: str, asked: wire.Generate, http: Request) -> wire.Generated:
        """A text for each request, with what was measured: the shift of steered ones, how likely amplified ones are."""
        serving.tell(http, asked, organism=name, rows=len(asked.requests))
        async with serving.pair(name) as pair:
            rows = await in_thread(_rows, pair, asked)
            start(pair, [(r.side, row) for r, row in zip(asked.requests, rows, strict=True)], http, serving.metrics)
            await ended(rows, http)
            texts = await in_thread(jobs.texts_of, pair, rows)
            return wire.Generated(
                texts=texts, shifts=[row.shift for row in rows], likelihoods=[likelihood([row]) for row in rows]
            )

    @app.post("/v1/pairs/{name}/nll")
    async def nll(name: str, asked: wire.Nll, http: Request) -> list[float | None]:
        """Mean negative log-likelihood per token, in nats; null for texts of fewer than two tokens."""
        async with serving.pair(name) as pair:
            found = await computed(http, pair.mean_nll, asked.side, asked.texts)
        return [None if value == float("inf") else value for value in found]

    @app.post("/v1/pairs/{name}/said")
    async def said(name: str, asked: wire.Said, http: Request) -> list[tuple[float, int]]:
        """Summed negative log-likelihood of each text after its request's prompt, in nats, and its tokens."""
        async with serving.pair(name) as pair:

            def found() -> list[tuple[float, int]]:
                requests = [request.unpacked() for request in asked.requests]
                jobs.demand_short(pair, asked.side, *(r.prompt for r in requests), *asked.texts)
                return pair.said_nll(asked.side, requests, asked.texts)

            return await computed(http, found)


def _tensor_routes(app: FastAPI, serving: Serving) -> None:
    @app.post("/v1/pairs/{name}/residuals")
    async def residuals(name: str, asked: wire.Residuals, http: Request) -> Response:
        """Residual streams after blocks: (n, k, d_model) for each layer, in a frame of safetensors."""
        async with serving.pair(name) as pair:

            def found() -> Response:
                for layer in asked.layers:
                    _fits(pair, layer)
                if len(set(map(len, asked.ids))) != 1:
                    raise UsageError("ids: all rows must have as many tokens")
                _readable(pair, asked.side, asked.ids)
                seen = pair.residuals(asked.side, torch.tensor(asked.ids), asked.layers)
                return _framed({str(layer): part for layer, part in seen.items()})

            return await computed(http, found)

    @app.post("/v1/pairs/{name}/unembed")
    async def unembed(name: str, asked: wire.Unembed, http: Request) -> Response:
        """The logit lens: logits (n, vocab)."""
        async with serving.pair(name) as pair:

            def found() -> Response:
                _fits(pair, 0, asked.vectors, rows=True)
                return _framed({"logits": pair.unembed(asked.side, asked.vectors.tensor())})

            return await computed(http, found)

    @app.post("/v1/pairs/{name}/swapped")
    async def swapped(name: str, asked: wire.Swapped, http: Request) -> Response:
        """Losses with δ's component swapped between the models: `sums` (n, 1 + m) and `counts` (n,)."""
        async with serving.pair(name) as pair:

            def found() -> Response:
                _fits(pair, asked.layer, asked.vectors, rows=True)
                if list(map(len, asked.rows)) != list(map(len, asked.learned)):
                    raise UsageError("learned: each row needs a flag for each of its tokens")
                for side in Side:
                    _readable(pair, side, asked.rows)
                vectors = asked.vectors.tensor()
                sums, counts = pair.swapped_nll(asked.host, asked.rows, asked.learned, asked.layer, vectors)
                return _framed({"sums": sums, "counts": counts})

            return await computed(http, found)


def _run_routes(app: FastAPI, serving: Serving) -> None:
    """Those that answer in parts, one for each run of the models."""

    @app.post("/v1/pairs/{name}/patched")
    async def patched(name: str, asked: wire.Patched, http: Request) -> Response:
        """Next-token logits of patched prompts, a frame for each run of the vectors."""
        async with AsyncExitStack() as held:
            pair = await held.enter_async_context(serving.pair(name))

            def begun() -> tuple[tuple[torch.Tensor, ...], Iterator[tuple[torch.Tensor, ...]]]:
                _fits(pair, asked.layer, asked.vectors, rows=True)
                jobs.demand_short(pair, asked.side, *asked.prompts)
                prompts = [plain_ids(pair.tokenizer, prompt) for prompt in asked.prompts]
                _readable(pair, asked.side, prompts)
                if min(map(len, prompts)) < 2:
                    raise UsageError("prompts: each needs two tokens or more, of which the last is patched")
                runs = pair.patched_logits(asked.side, asked.prompts, asked.layer, asked.vectors.tensor())
                return next(runs), runs

            first, more = await computed(http, begun)  # what fails, fails before the answer begins

            named = ({str(i): logits for i, logits in enumerate(run)} for run in chain([first], more))
            return Streamed(_frames(named), held.pop_all(), BINARY)

    @app.post("/v1/pairs/{name}/pushed")
    async def pushed(name: str, asked: wire.Pushed, http: Request) -> Response:
        """Logits after rows of tokens with vectors added to their residuals, a frame for each run of the rows."""
        async with AsyncExitStack() as held:
            pair = await held.enter_async_context(serving.pair(name))

            def begun() -> tuple[torch.Tensor, Iterator[torch.Tensor]]:
                _fits(pair, asked.layer, asked.vectors, rows=True)
                _readable(pair, asked.side, asked.rows)
                runs = pair.pushed_logits(asked.side, asked.rows, asked.layer, asked.vectors.tensor())
                return next(runs), runs

            first, more = await computed(http, begun)
            named = ({"logits": logits} for logits in chain([first], more))
            return Streamed(_frames(named), held.pop_all(), BINARY)


def _rows(pair: LocalPair, asked: wire.Generate) -> list[Row]:
    for push in asked.steerings:
        _fits(pair, push.layer, push.vector)
    return jobs.rows_of(pair, asked.unpacked())


def _frames(parts: Iterator[dict[str, torch.Tensor]]) -> Iterator[bytes]:
    """An answer in parts; what breaks in the middle of it is told by the last one."""
    try:
        yield from map(wire.frame, parts)
    except AuditorError as error:
        yield wire.framed_error(error)


def _framed(tensors: dict[str, torch.Tensor]) -> Response:
    return Response(wire.frame(tensors), media_type=BINARY)


def _info(serving: Serving, name: str, pair: LocalPair) -> wire.PairInfo:
    host = pair.models[Side.FINETUNED].host
    with tempfile.TemporaryDirectory() as folder:
        pair.tokenizer.save_pretrained(folder)
        files = {
            path.name: path.read_text("utf-8") for path in Path(folder).iterdir() if path.suffix in {".json", ".jinja"}
        }
    served = serving.library.served[name]
    return wire.PairInfo(
        name=name, fingerprint=pair.fingerprint, n_layers=pair.n_layers, d_model=pair.d_model, dtype=pair.dtype,
        context=host.context, note=pair.note, images=pair.images, base=served.base, finetuned=served.finetuned,
        tokenizer=files, base_sources=pair.base_sources, tuned_sources=pair.tuned_sources,
    )  # fmt: skip


def _fits(pair: LocalPair, layer: int, vectors: wire.Array | None = None, *, rows: bool = False) -> None:
    """Raises UsageError unless there is such a layer, and the vectors are as wide as the stream."""
    if not 0 <= layer < pair.n_layers:
        raise UsageError(f"layer {layer} is not there; {pair.name} has layers 0 to {pair.n_layers - 1}")
    if vectors is not None and (vectors.shape[-1] != pair.d_model or len(vectors.shape) != 1 + rows):
        wanted = f"(n, {pair.d_model})" if rows else f"({pair.d_model},)"
        raise UsageError(f"shape {list(vectors.shape)}: {pair.name} takes {wanted}")


def _readable(pair: LocalPair, side: Side, rows: Sequence[Sequence[int]]) -> None:
    """Raises UsageError for rows that `side` cannot read: a GPU would be lost to an index out of range."""
    host = pair.models[side].host
    if not all(rows):
        raise UsageError("a row of no tokens cannot be read")
    for row in rows:
        if (bad := min(row)) < 0 or (bad := max(row)) >= host.embeddings:
            raise UsageError(f"token id {bad} is not there; {pair.name}/{side} has ids 0 to {host.embeddings - 1}")
    host.demand_room(max(map(len, rows)))
