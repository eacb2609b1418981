"""A pair on a model server: the same protocol as a pair in this process, and the same texts for the same seeds."""

from __future__ import annotations

import hashlib
import os
import secrets
import tempfile
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel
from tenacity import Retrying, retry_if_exception_type, stop_after_delay
from torch import Tensor

from auditor.config import Settings
from auditor.errors import AuditorError, UnknownName, UsageError
from auditor.models import wire
from auditor.models.generate import Request, Side
from auditor.models.load import load_pair
from auditor.models.pair import ModelPair

PATIENCE = 900.0  # seconds for which a busy server is asked again
LONGEST_WAIT = 30.0  # seconds between two attempts
TIMEOUT = httpx.Timeout(None, connect=10)  # nothing is said before the last text is there
REQUESTS_AT_ONCE = 128  # of one call: what a batch holds


class _Busy(Exception):
    """The server cannot do it now; `wait` seconds later it may."""

    def __init__(self, reason: str, wait: float) -> None:
        super().__init__(reason)
        self.wait = wait


class RemotePair:
    """A `ModelPair` whose weights are on a model server."""

    def __init__(self, client: httpx.Client, info: wire.PairInfo, tokenizer: Any) -> None:
        self._client, self.tokenizer = client, tokenizer
        weakref.finalize(self, client.close)
        self.name, self.fingerprint, self.note = info.name, info.fingerprint, info.note
        self.n_layers, self.d_model = info.n_layers, info.d_model
        self.dtype, self.base_sources = info.dtype, info.base_sources

    def generate(self, requests: Sequence[Request]) -> list[str]:
        texts: list[str] = []
        for start in range(0, len(requests), REQUESTS_AT_ONCE):
            said = self._post("generate", wire.Generate.of(requests[start : start + REQUESTS_AT_ONCE])).read()
            texts += wire.Generated.model_validate_json(said).texts
        return texts

    def mean_nll(self, side: Side, texts: Sequence[str]) -> list[float]:
        if not texts:
            return []
        found: list[float | None] = self._post("nll", wire.Nll(side=side, texts=list(texts))).json()
        return [float("inf") if value is None else value for value in found]

    def residuals(self, side: Side, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        body = wire.Residuals(side=side, layers=list(layers), ids=ids.tolist())
        return {int(layer): part for layer, part in self._tensors("residuals", body).items()}

    def unembed(self, side: Side, vectors: Tensor) -> Tensor:
        return self._tensors("unembed", wire.Unembed(side=side, vectors=wire.Array.of(vectors)))["logits"]

    def patched_logits(
        self, side: Side, prompts: Sequence[str], layer: int, vectors: Tensor
    ) -> Iterator[tuple[Tensor, ...]]:
        body = wire.Patched(side=side, prompts=list(prompts), layer=layer, vectors=wire.Array.of(vectors))
        with closing(self._post("patched", body, stream=True)) as response:
            try:
                for run in wire.unframed(response.iter_bytes()):
                    yield tuple(run[str(number)] for number in range(len(prompts)))
            except (httpx.TransportError, ValueError) as error:
                raise AuditorError(f"the model server broke off its answer: {error!r}") from error

    def swapped_nll(
        self,
        host: Side,
        rows: Sequence[Sequence[int]],
        learned: Sequence[Sequence[bool]],
        layer: int,
        vectors: Tensor,
    ) -> tuple[Tensor, Tensor]:
        body = wire.Swapped(
            host=host, rows=[list(row) for row in rows], learned=[list(map(bool, flags)) for flags in learned],
            layer=layer, vectors=wire.Array.of(vectors),
        )  # fmt: skip
        found = self._tensors("swapped", body)
        return found["sums"], found["counts"]

    def _tensors(self, method: str, body: BaseModel) -> dict[str, Tensor]:
        return next(wire.unframed(self._post(method, body).iter_bytes()))

    def _post(self, method: str, body: BaseModel, *, stream: bool = False) -> httpx.Response:
        asked = self._client.build_request(
            "POST", f"/v1/pairs/{quote(self.name)}/{method}", content=body.model_dump_json(),
            headers={"content-type": "application/json"},
        )  # fmt: skip
        return _patiently(lambda: self._client.send(asked, stream=stream))


def connect(server: str, name: str, settings: Settings) -> RemotePair:
    """The pair `name` of the model server at `server`, whose key is in AUDITOR_API_KEY if it wants one.

    Raises UsageError if the server cannot be reached, wants another key, or has no such pair.
    """
    client = open_client(server)
    try:
        said = _patiently(lambda: client.get(f"/v1/pairs/{quote(name)}")).read()
        info = wire.PairInfo.model_validate_json(said)
        return RemotePair(client, info, _tokenizer(info, settings))
    except BaseException:
        client.close()
        raise


def base_on(server: str, name: str) -> str:
    """What the model server at `server` calls the base of its pair `name`. Raises UsageError as `connect` does."""
    with open_client(server) as client:
        served = {pair["name"]: pair["base"] for pair in _patiently(lambda: client.get("/v1/pairs")).json()}
    if name not in served:
        raise UnknownName("organism", name, served)
    return str(served[name])


def open_pair(
    base: str, finetuned: str, settings: Settings, *, name: str, adapter_base: str | None = None
) -> ModelPair:
    """A pair in this process, or the pair `name` of the model server, if the settings name one. Raises BadModel."""
    if settings.server is not None:
        return connect(settings.server, name, settings)
    return load_pair(base, finetuned, settings, name=name, adapter_base=adapter_base)


def open_client(server: str) -> httpx.Client:
    """A client of the model server at `server`. Raises UsageError if that is no address."""
    address = server.rstrip("/").removesuffix("/v1")
    if not address.startswith(("http://", "https://")):
        raise UsageError(f"--server {server}: give its address, such as http://127.0.0.1:8000")
    headers = {"x-client": secrets.token_hex(8)}
    if key := os.environ.get("AUDITOR_API_KEY"):
        headers["authorization"] = f"Bearer {key}"
    return httpx.Client(base_url=address, headers=headers, timeout=TIMEOUT, trust_env=False)


def _patiently(send: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer, asked for again while the server is busy or away for a moment. Raises UsageError or AuditorError."""
    retrying = Retrying(
        retry=retry_if_exception_type(_Busy),
        stop=stop_after_delay(PATIENCE),
        wait=lambda state: min(LONGEST_WAIT, getattr(state.outcome.exception(), "wait", 1.0)) if state.outcome else 0,
        reraise=True,
    )
    try:
        return retrying(_once, send)
    except _Busy as error:
        raise UsageError(str(error)) from error


def _once(send: Callable[[], httpx.Response]) -> httpx.Response:
    try:
        response = send()
    except httpx.ConnectError as error:
        raise UsageError(f"no model server answers at {error.request.url.copy_with(path='/')}: {error}") from error
    except httpx.TransportError as error:
        raise _Busy(f"the model server went away: {error!r}", 1.0) from error
    if response.is_success:
        return response
    response.read()
    try:
        reason = response.json()["error"]["message"]
    except (ValueError, LookupError, TypeError):
        reason = response.text[:200]
    said = f"the model server says: {reason} (HTTP {response.status_code})"
    if response.status_code in (429, 503):
        after = response.headers.get("retry-after", "1")
        raise _Busy(said, float(after) if after.isdigit() else 1.0)
    if response.status_code == 401:
        raise UsageError(f"{said}; put its key into AUDITOR_API_KEY")
    if response.status_code in (400, 404, 413, 422):
        raise UsageError(said)
    raise AuditorError(said)


def _tokenizer(info: wire.PairInfo, settings: Settings) -> Any:
    """The server's tokenizer, from its files; they are data, no code of theirs is run."""
    from transformers import AutoTokenizer

    digest = hashlib.sha256(repr(sorted(info.tokenizer.items())).encode()).hexdigest()
    folder = settings.cache_dir / "tokenizers" / digest
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent))
        for name, text in info.tokenizer.items():
            if "/" in name or "\\" in name or not name.endswith((".json", ".jinja", ".txt")):
                raise UsageError(f"the model server sent a tokenizer file called {name!r}")
            (part / name).write_text(text, encoding="utf-8")
        with suppress(OSError):  # another process was first
            part.rename(folder)
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
