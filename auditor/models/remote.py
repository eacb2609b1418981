"""A pair on a model server: the same protocol as a pair in this process, and the same texts for the same seeds."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import BaseModel
from torch import Tensor

from auditor.config import Settings
from auditor.errors import AuditorError, UnknownName, UsageError
from auditor.files import flaw, seal, take_place
from auditor.models import wire
from auditor.models.generate import Amplified, Request, Side, demand_amplified
from auditor.models.http import Client, Unusable
from auditor.models.pair import ModelPair
from auditor.records.cards import AdapterVariant, EvidenceSettings

REQUESTS_AT_ONCE = 128  # of one call: what a batch holds


class RemotePair:
    """A `ModelPair` whose weights are on a model server."""

    has_base = True  # of whatever is served

    def __init__(self, client: Client, info: wire.PairInfo, tokenizer: Any) -> None:
        self._client, self.tokenizer = client, tokenizer
        self.name, self.fingerprint, self.note = info.name, info.fingerprint, info.note
        self.n_layers, self.d_model = info.n_layers, info.d_model
        self.dtype, self.images = info.dtype, info.images
        self.base_sources, self.tuned_sources = info.base_sources, info.tuned_sources

    def generate(self, requests: Sequence[Request]) -> list[str]:
        return [text for said in self._generated(requests) for text in said.texts]

    def amplified(self, requests: Sequence[Request]) -> list[Amplified]:
        demand_amplified(requests)
        return [
            Amplified(text, *(likelihood or (None, None)))
            for said in self._generated(requests)
            for text, likelihood in zip(said.texts, said.likelihoods, strict=True)
        ]

    def _generated(self, requests: Sequence[Request]) -> Iterator[wire.Generated]:
        for start in range(0, len(requests), REQUESTS_AT_ONCE):
            said = self._post("generate", wire.Generate.of(requests[start : start + REQUESTS_AT_ONCE]))
            yield self._client.parsed(wire.Generated, said)

    def mean_nll(self, side: Side, texts: Sequence[str]) -> list[float]:
        if not texts:
            return []
        found: list[float | None] = self._post("nll", wire.Nll(side=side, texts=list(texts))).json()
        return [float("inf") if value is None else value for value in found]

    def said_nll(self, side: Side, requests: Sequence[Request], texts: Sequence[str]) -> list[tuple[float, int]]:
        found: list[tuple[float, int]] = []
        for start in range(0, len(requests), REQUESTS_AT_ONCE):
            part = slice(start, start + REQUESTS_AT_ONCE)
            asked = [wire.WireRequest.of(request) for request in requests[part]]
            said = self._post("said", wire.Said(side=side, requests=asked, texts=list(texts[part])))
            found += [(float(total), int(count)) for total, count in said.json()]
        return found

    def reading(
        self, lens: str, settings: EvidenceSettings, parts: Mapping[str, str], tell: Callable[[str], None]
    ) -> tuple[str, dict[str, Tensor]]:
        """What the server reads with a lens: JSON with `reading` and `cost`, and its arrays. `tell`: of each stage.

        Raises Declined if the server would read it otherwise than `parts` (of the key) say, AuditorError if the lens
        failed there.
        """
        body = wire.Read(lens=lens, settings=settings, parts=dict(parts))
        for part in self._client.parts(self._path("reading"), body, wire.unframed):
            if wire.FAILED in part:
                raise AuditorError(wire.text_of(part[wire.FAILED]))
            if wire.READING in part:
                return wire.text_of(part[wire.READING]), wire.arrays_of(part)
            if stage := wire.text_of(part[wire.STAGE]).strip():
                tell(stage)
        raise Unusable(f"the model server broke off its reading of {lens}")

    def residuals(self, side: Side, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        body = wire.Residuals(side=side, layers=list(layers), ids=ids.tolist())
        return {int(layer): part for layer, part in self._tensors("residuals", body).items()}

    def unembed(self, side: Side, vectors: Tensor) -> Tensor:
        return self._tensors("unembed", wire.Unembed(side=side, vectors=wire.Array.of(vectors)))["logits"]

    def patched_logits(
        self, side: Side, prompts: Sequence[str], layer: int, vectors: Tensor
    ) -> Iterator[tuple[Tensor, ...]]:
        body = wire.Patched(side=side, prompts=list(prompts), layer=layer, vectors=wire.Array.of(vectors))
        for run in self._client.parts(self._path("patched"), body, wire.unframed):
            yield tuple(run[str(number)] for number in range(len(prompts)))

    def pushed_logits(self, side: Side, rows: Sequence[Sequence[int]], layer: int, vectors: Tensor) -> Iterator[Tensor]:
        body = wire.Pushed(side=side, rows=[list(row) for row in rows], layer=layer, vectors=wire.Array.of(vectors))
        for run in self._client.parts(self._path("pushed"), body, wire.unframed):
            yield run["logits"]

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

    def _post(self, method: str, body: BaseModel) -> httpx.Response:
        return self._client.post(self._path(method), body)

    def _path(self, method: str) -> str:
        return f"/v1/pairs/{quote(self.name)}/{method}"


def connect(server: str, name: str, settings: Settings) -> RemotePair:
    """The pair `name` of the model server at `server`, whose key is in AUDITOR_API_KEY if it wants one.

    Raises UsageError if the server cannot be reached, wants another key, or has no such pair.
    """
    client = Client(server)
    try:
        info = client.parsed(wire.PairInfo, client.get(f"/v1/pairs/{quote(name)}"))
        return RemotePair(client, info, _tokenizer(info, settings))
    except BaseException:
        client.close()
        raise


def base_on(server: str, name: str) -> str:
    """What the model server at `server` calls the base of its pair `name`. Raises UsageError as `connect` does."""
    with closing(Client(server)) as client:
        served = {pair.name: pair.base for pair in client.parsed(wire.Pairs, client.get("/v1/pairs")).root}
    if name not in served:
        raise UnknownName("organism", name, served)
    return served[name]


def open_pair(
    base: str | None,
    finetuned: str,
    settings: Settings,
    *,
    name: str,
    adapter_base: str | None = None,
    variant: AdapterVariant | None = None,
) -> ModelPair:
    """A pair in this process, or the pair `name` of the model server, if the settings name one.

    Without a base, which only a whole model can do without, a pair of the finetune alone. `variant`: of the finetune;
    a server makes its own (see `Served`). Raises BadModel, UsageError.
    """
    if settings.server is not None:
        return connect(settings.server, name, settings)
    from auditor.models.load import load_alone, load_pair  # slow to import, as all that loads models

    if base is None:
        return load_alone(finetuned, settings, name=name)
    return load_pair(base, finetuned, settings, name=name, adapter_base=adapter_base, variant=variant)


def _tokenizer(info: wire.PairInfo, settings: Settings) -> Any:
    """The server's tokenizer, from its files; they are data, no code of theirs is run. Raises UsageError."""
    from transformers import AutoTokenizer

    for name in info.tokenizer:
        if "/" in name or "\\" in name or not name.endswith((".json", ".jinja", ".txt")):
            raise UsageError(f"the model server sent a tokenizer file called {name!r}")
    digest = hashlib.sha256(repr(sorted(info.tokenizer.items())).encode()).hexdigest()
    folder = settings.cache_dir / "tokenizers" / digest
    if flaw(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as beside:
            part = Path(beside) / digest
            part.mkdir()
            for name, text in info.tokenizer.items():
                (part / name).write_text(text, encoding="utf-8")
            seal(part)
            take_place(part, folder)
    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
