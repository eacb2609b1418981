"""What a pair's methods look like over HTTP: JSON with arrays in base64 goes in, safetensors come out. No pickle."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, FailFast, Field, PrivateAttr, RootModel, model_validator
from safetensors.torch import load, save
from torch import Tensor

from auditor.errors import AuditorError, BadModel
from auditor.models.generate import MOST_ALPHA, PLAUSIBILITY, Amplification, Request, Side, Steering
from auditor.records.cards import EvidenceSettings

ERROR = "error"  # name of the one tensor of a frame that tells what went wrong
STAGE, READING, FAILED = "stage", "reading", "failed"  # … that tells how far a lens is, what it read, or why not
ARRAY = "array."  # before the names of a reading's arrays
LENGTH = 8  # bytes of a frame's length, little-endian
MOST_TOKENS = 4096  # of one answer
MOST_BYTES = 64 << 20  # of a body: 1,000 residuals of a 70B model are 33 MB, a third more in base64
MOST_KEYS = 32 << 10  # of a body of many requests
Texts = Field(min_length=1, max_length=4096)
Words = Annotated[str, Field(max_length=1_000_000)]
# Only the first wrong one is told: a list of a million would keep the server busy for half a minute.
Ids = Annotated[list[int], FailFast()]
Flags = Annotated[list[bool], FailFast()]


class Body(BaseModel):
    """Base of request bodies: unknown fields are errors."""

    model_config = ConfigDict(extra="forbid")
    most_bytes: ClassVar[int] = MOST_BYTES >> 2  # of its JSON; numbers and texts cost more to read than vectors
    most_keys: ClassVar[int] = 2_000  # in all its objects: every one that is not known is an error, made under the GIL


class Array(Body):
    """A float32 tensor: its shape, and its little-endian bytes in base64."""

    shape: tuple[int, ...] = Field(min_length=1, max_length=3)
    data: str
    _values: Tensor = PrivateAttr()  # read once: there are megabytes of them

    @model_validator(mode="after")
    def _whole(self) -> Array:
        try:
            data = base64.b64decode(self.data, validate=True)
        except ValueError as error:
            raise ValueError("data is not base64") from error
        count = len(data) / 4
        if min(self.shape) < 1 or count != math.prod(self.shape):
            raise ValueError(f"data holds {count:g} float32 numbers, but shape {list(self.shape)} asks for others")
        self._values = torch.from_numpy(np.frombuffer(data, "<f4").reshape(self.shape).copy())
        if not bool(self._values.isfinite().all()):
            raise ValueError("data holds numbers that are not finite")
        return self

    @classmethod
    def of(cls, tensor: Tensor) -> Array:
        values = tensor.detach().float().cpu().contiguous()
        data = base64.b64encode(values.numpy().astype("<f4").tobytes()).decode()
        made = cls.model_construct(shape=tuple(tensor.shape), data=data)
        made._values = values
        return made

    def tensor(self) -> Tensor:
        return self._values


class WireSteering(Body):
    layer: int = Field(ge=0)
    vector: Array


class Amplify(Body):
    """`Amplification`: draw from log p_finetuned + α (log p_finetuned − log p_base), of the plausible tokens."""

    alpha: float = Field(ge=0, le=MOST_ALPHA, allow_inf_nan=False)
    plausibility: float = Field(PLAUSIBILITY, gt=0, le=1)  # of the likeliest token's probability

    @classmethod
    def of(cls, how: Amplification) -> Amplify:
        return cls(alpha=how.alpha, plausibility=how.plausibility)

    def unpacked(self) -> Amplification:
        return Amplification(self.alpha, self.plausibility)


class WireRequest(Body):
    """`Request`, its steering being a place in the list of steerings."""

    prompt: Words
    side: Side = Side.FINETUNED
    seed: int = Field(0, ge=0, lt=1 << 63)
    max_new_tokens: int = Field(128, ge=1, le=MOST_TOKENS)
    temperature: float = Field(1.0, ge=0, le=100)
    top_p: float = Field(1.0, gt=0, le=1)
    chat: bool = True
    steering: int | None = Field(None, ge=0)
    system: str = Field("", max_length=1_000_000)
    prefill: str = Field("", max_length=1_000_000)
    user_turn: bool = False
    amplify: Amplify | None = None
    verbatim: bool = False
    history: list[tuple[Words, Words]] = Field([], max_length=1000)

    @classmethod
    def of(cls, request: Request, steering: int | None = None) -> WireRequest:
        r = request
        return cls(
            prompt=r.prompt, side=r.side, seed=r.seed, max_new_tokens=r.max_new_tokens, temperature=r.temperature,
            top_p=r.top_p, chat=r.chat, steering=steering, system=r.system, prefill=r.prefill, user_turn=r.user_turn,
            amplify=Amplify.of(r.amplify) if r.amplify else None, verbatim=r.verbatim,
            history=list(r.history),
        )  # fmt: skip

    def unpacked(self, steering: Steering | None = None) -> Request:
        return Request(
            self.prompt, self.side, self.seed, self.max_new_tokens, self.temperature, self.top_p, self.chat, steering,
            self.system, self.prefill, self.user_turn, self.amplify.unpacked() if self.amplify else None,
            self.verbatim, tuple(self.history),
        )  # fmt: skip


class Generate(Body):
    most_bytes, most_keys = MOST_BYTES, MOST_KEYS
    requests: list[WireRequest] = Texts
    steerings: list[WireSteering] = Field([], max_length=4096)

    @model_validator(mode="after")
    def _known(self) -> Generate:
        if bad := [r.steering for r in self.requests if r.steering is not None and r.steering >= len(self.steerings)]:
            raise ValueError(f"steering {bad[0]} is not in the list of {len(self.steerings)} steerings")
        return self

    @classmethod
    def of(cls, requests: Sequence[Request]) -> Generate:
        pushes = list(dict.fromkeys(r.steering for r in requests if r.steering is not None))
        place = {push: number for number, push in enumerate(pushes)}
        return cls(
            requests=[WireRequest.of(r, None if r.steering is None else place[r.steering]) for r in requests],
            steerings=[WireSteering(layer=push.layer, vector=Array.of(push.vector)) for push in pushes],
        )

    def unpacked(self) -> list[Request]:
        pushes = [Steering(push.layer, push.vector.tensor()) for push in self.steerings]
        return [r.unpacked(None if r.steering is None else pushes[r.steering]) for r in self.requests]


class Generated(BaseModel):
    texts: list[str]
    shifts: list[float | None]  # what each steered text's prompt gained in its residual stream
    likelihoods: list[tuple[float, float] | None]  # of each amplified text: by the finetune, by the base


class Nll(Body):
    side: Side
    texts: list[str] = Texts


class Said(Body):
    """What was said after each request; a steering in one means nothing here."""

    most_keys = MOST_KEYS
    side: Side
    requests: list[WireRequest] = Texts
    texts: list[str] = Texts

    @model_validator(mode="after")
    def _paired(self) -> Said:
        if len(self.requests) != len(self.texts):
            raise ValueError(f"{len(self.requests)} requests and {len(self.texts)} texts")
        return self


class Residuals(Body):
    side: Side
    layers: list[int] = Field(min_length=1, max_length=1000)
    ids: list[Ids] = Texts


class Unembed(Body):
    most_bytes = MOST_BYTES
    side: Side
    vectors: Array


class Patched(Body):
    most_bytes = MOST_BYTES
    side: Side
    prompts: list[str] = Field(min_length=1, max_length=16)
    layer: int = Field(ge=0)
    vectors: Array


class Pushed(Body):
    most_bytes = MOST_BYTES
    side: Side
    rows: list[Ids] = Texts
    layer: int = Field(ge=0)
    vectors: Array


class Swapped(Body):
    most_bytes = MOST_BYTES
    host: Side
    rows: list[Ids] = Texts
    learned: list[Flags] = Texts
    layer: int = Field(ge=0)
    vectors: Array


class Read(Body):
    """What one lens reads, with the settings of everything that it needs. `parts`: what the client's key is made of."""

    most_bytes = 1 << 20
    lens: str = Field(max_length=100)
    settings: EvidenceSettings
    parts: dict[str, str] = Field(max_length=50)


class PairNamed(BaseModel):
    """A pair that is served, and what it is made of."""

    name: str
    base: str
    finetuned: str


class Pairs(RootModel[list[PairNamed]]):
    """All of them."""


class PairInfo(BaseModel):
    """Everything about a pair but its weights."""

    name: str
    fingerprint: str
    base_sources: tuple[str, ...] = ()
    tuned_sources: tuple[str, ...] = ()
    n_layers: int
    d_model: int
    dtype: str
    context: int  # tokens of prompt and answer together
    note: str
    images: bool = False
    base: str
    finetuned: str
    tokenizer: dict[str, str]  # file name: text


def frame(tensors: dict[str, Tensor]) -> bytes:
    """Named tensors as bytes that say how long they are."""
    data = save({name: tensor.cpu().contiguous() for name, tensor in tensors.items()})
    return len(data).to_bytes(LENGTH, "little") + bytes(data)


def spelled(text: str) -> Tensor:
    """A text as a tensor, to go with others."""
    return torch.frombuffer(bytearray(text.encode() or b" "), dtype=torch.uint8)


def text_of(tensor: Tensor) -> str:
    """What was `spelled`."""
    return tensor.numpy().tobytes().decode()


def beside(arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A reading's arrays by names that stand for nothing else in its frame."""
    return {f"{ARRAY}{name}": array.clone() for name, array in arrays.items()}  # safetensors takes none twice


def arrays_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those that stand `beside` a reading."""
    return {name.removeprefix(ARRAY): array for name, array in tensors.items() if name.startswith(ARRAY)}


def framed_error(error: AuditorError) -> bytes:
    """What went wrong, as the last frame of an answer that has begun."""
    return frame(
        {ERROR: spelled(str(error)), **({BadModel.code: torch.ones(1)} if isinstance(error, BadModel) else {})}
    )


def unframed(chunks: Iterator[bytes]) -> Iterator[dict[str, Tensor]]:
    """The frames in a stream of bytes. Raises ValueError if it ends within one, and AuditorError for one that tells
    what went wrong.
    """
    held = bytearray()
    for chunk in chunks:
        held += chunk
        while len(held) >= LENGTH and len(held) >= (end := LENGTH + int.from_bytes(held[:LENGTH], "little")):
            tensors = load(bytes(held[LENGTH:end]))
            if ERROR in tensors:
                kind = BadModel if BadModel.code in tensors else AuditorError
                raise kind(f"the model server says: {text_of(tensors[ERROR])}")
            yield tensors
            del held[:end]
    if held:
        raise ValueError("the answer was cut off")
