"""OpenAI's chat completions over a pair's models."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from auditor.models.generate import Sampling, Side, Steering, demand_amplifiable, derive_seed
from auditor.models.local import LocalPair
from auditor.models.row import Row
from auditor.server.jobs import compared, demand_short, proven
from auditor.server.metrics import Metrics
from auditor.server.schema import ChatRequest, Proof
from auditor.server.speech import Speech

USUAL_TOKENS = 512  # of an answer whose request says nothing


@dataclass
class Completion:
    """One request on its way: a row and its text for each choice."""

    id: str
    created: int
    asked: ChatRequest
    pair: LocalPair
    seed: int
    rows: list[Row]
    speeches: list[Speech]
    proof: Proof | None = None
    heard: asyncio.Queue[int] = field(default_factory=asyncio.Queue)  # places of rows that said more

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.asked.model}

    def auditor(self) -> dict[str, Any]:
        """The extension field: the seed that gives these texts again, and what steering or amplification did."""
        steering = proven(self.proof, self.rows).model_dump() if self.proof else None
        amplify = comparison.model_dump() if (comparison := compared(self.rows)) else None
        return {"organism": self.pair.name, "fingerprint": self.pair.fingerprint, "seed": self.seed,
                "steering": steering, "amplify": amplify}  # fmt: skip

    def usage(self) -> dict[str, int]:
        told, said = len(self.rows[0].prompt), sum(len(row.out) for row in self.rows)
        return {"prompt_tokens": told, "completion_tokens": said, "total_tokens": told + said}

    def logprobs(self, row: Row, since: int = 0, until: int | None = None) -> dict[str, Any] | None:
        """OpenAI's log-probabilities of the row's tokens, of the model's own distribution (temperature 1)."""
        if not self.asked.logprobs:
            return None

        def told(token: int, value: float) -> dict[str, Any]:
            text = str(self.pair.tokenizer.decode([token]))
            return {"token": text, "logprob": value, "bytes": list(text.encode())}

        pairs = list(zip(row.out, row.logprobs, strict=False))[since:until]
        return {
            "content": [
                {**told(token, own), "top_logprobs": [told(*o) for o in others]} for token, (own, others) in pairs
            ],
            "refusal": None,
        }

    def answer(self) -> dict[str, Any]:
        """The whole completion."""
        choices = [
            {
                "index": i,
                "message": {"role": "assistant", "content": speech.finish(row), "refusal": None},
                "logprobs": self.logprobs(row),
                "finish_reason": speech.reason(row),
            }
            for i, (row, speech) in enumerate(zip(self.rows, self.speeches, strict=True))
        ]
        return {**self.head("chat.completion"), "choices": choices, "usage": self.usage(), "auditor": self.auditor()}


def prepare(asked: ChatRequest, side: Side, pair: LocalPair, push: tuple[Steering, Proof] | None) -> Completion:
    """A request's rows, not yet in any queue. Raises UsageError."""
    steering, proof = push or (None, None)
    messages = [message.plain() for message in asked.messages]
    demand_short(pair, side, "".join(message["content"] for message in messages))
    prefill = messages.pop()["content"] if messages[-1]["role"] == "assistant" and len(messages) > 1 else ""
    prompt = pair.prompts.chat(side, messages, prefill)
    room = pair.models[side].host.context - len(prompt)
    tokens = asked.tokens or max(1, min(USUAL_TOKENS, room))
    temperature = 1.0 if asked.temperature is None else asked.temperature
    seed = asked.seed if asked.seed is not None else secrets.randbits(62)
    count = asked.n or 1
    rows = [
        Row(
            prompt,
            Sampling(derive_seed(seed, i) if i else seed, tokens, temperature, asked.top_p or 1.0),
            pair.models[side].adapter,
            steering,
            (asked.top_logprobs or 0) if asked.logprobs else None,
            stops=pair.stops(side),
        )
        for i in range(count)
    ]
    if asked.amplify is not None:
        demand_amplifiable(side, steering)
        heard_by_base = pair.prompts.chat(Side.BASE, messages, prefill)
        for row in rows:
            pair.amplify(row, asked.amplify.unpacked(), heard_by_base)
    speeches = [Speech(pair.tokenizer, asked.stops) for _ in rows]
    name = f"chatcmpl-{secrets.token_hex(12)}"
    return Completion(name, int(time.time()), asked, pair, seed, rows, speeches, proof)


def listen(made: Completion, metrics: Metrics) -> None:
    """Hear every token of the rows; to be called in the event loop, before they are queued."""
    loop, begun = asyncio.get_running_loop(), time.perf_counter()

    def tell(place: int) -> None:
        loop.call_soon_threadsafe(made.heard.put_nowait, place)

    def hears(place: int) -> Callable[[Row], bool]:
        def heard(row: Row) -> bool:
            if len(row.out) == 1:
                metrics.first.observe(time.perf_counter() - begun)
            if made.asked.stream:
                tell(place)
            return bool(made.asked.stops) and made.speeches[place].hear(row)

        return heard

    for place, row in enumerate(made.rows):
        row.heard = hears(place)
        if made.asked.stream:
            row.ended.add_done_callback(lambda _ended, place=place: tell(place))  # type: ignore[misc]


async def stream(made: Completion) -> AsyncIterator[str]:
    """The completion as server-sent events, chunk by chunk."""

    def event(choices: list[dict[str, Any]], **more: Any) -> str:
        return f"data: {json.dumps({**made.head('chat.completion.chunk'), 'choices': choices, **more})}\n\n"

    told = [0] * len(made.rows)  # tokens whose log-probabilities were sent
    for place in range(len(made.rows)):
        yield event([_delta(place, {"role": "assistant", "content": ""})])
    unfinished = set(range(len(made.rows)))
    while unfinished:
        place = await made.heard.get()
        if place not in unfinished:
            continue
        row, speech = made.rows[place], made.speeches[place]
        ended = row.ended.done()
        if ended and (error := row.ended.exception()) is not None:
            yield f"data: {json.dumps({'error': {'message': str(error), 'type': 'server_error'}})}\n\n"
            return
        if not made.asked.stops:  # else the worker has heard it
            speech.hear(row)
        if ended:
            speech.finish(row)
        text, count = speech.more(last=ended), len(row.out)
        if text or (ended and made.asked.logprobs and told[place] < count):
            logprobs = made.logprobs(row, told[place], count)
            told[place] = count
            yield event([{**_delta(place, {"content": text}), "logprobs": logprobs}])
        if ended:
            unfinished.discard(place)
            yield event([{**_delta(place, {}), "finish_reason": speech.reason(row)}], auditor=made.auditor())
    if (made.asked.stream_options or {}).get("include_usage"):
        yield event([], usage=made.usage())
    yield "data: [DONE]\n\n"


def _delta(place: int, delta: dict[str, Any]) -> dict[str, Any]:
    return {"index": place, "delta": delta, "logprobs": None, "finish_reason": None}
