"""What audited models answered, kept: an audit that is walked again asks them nothing twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from auditor.errors import Refused
from auditor.models.generate import Amplified, Request, Steering
from auditor.models.pair import ModelPair


class Answers(Protocol):
    """Where they are written down, by audit and by the requests as plain data."""

    def find(self, job: str, requests: Sequence[Any]) -> list[Any] | None: ...
    def add(self, job: str, requests: Sequence[Any], answers: Sequence[Any]) -> None: ...


@dataclass(slots=True)
class Kept:
    """One audit's answers. Without `answers` nothing is kept."""

    job: str = ""
    answers: Answers | None = None
    asked: int = 0  # texts that were asked for, kept ones too

    def generate(self, pair: ModelPair, requests: Sequence[Request]) -> list[str]:
        """`pair.generate`."""
        known = self._known(requests)
        if known is not None:
            return [str(text) for text in known]
        with self._unless_refused(requests):
            texts = pair.generate(requests)
        return self._noted(requests, texts)

    def amplified(self, pair: ModelPair, requests: Sequence[Request]) -> list[Amplified]:
        """`pair.amplified`."""
        known = self._known(requests)
        if known is not None:
            return [Amplified(**answer) for answer in known]
        with self._unless_refused(requests):
            found = pair.amplified(requests)
        self._noted(requests, [asdict(answer) for answer in found])
        return found

    def _known(self, requests: Sequence[Request]) -> list[Any] | None:
        self.asked += len(requests)
        return None if self.answers is None else self.answers.find(self.job, [plain(each) for each in requests])

    @contextmanager
    def _unless_refused(self, requests: Sequence[Request]) -> Iterator[None]:
        """What a pair refuses (too long a prompt) it refuses before any model reads it: nothing was asked for."""
        try:
            yield
        except Refused:
            self.asked -= len(requests)
            raise

    def _noted(self, requests: Sequence[Request], answers: list[Any]) -> list[Any]:
        if self.answers is not None:
            self.answers.add(self.job, [plain(each) for each in requests], answers)
        return answers


def plain(request: Request) -> dict[str, Any]:
    """A request as JSON takes it, without what it does not say; a steering vector by its hash."""
    told = {key: value for key, value in asdict(replace(request, steering=None)).items() if value not in (None, "", ())}
    return told if request.steering is None else {**told, "steering": _named(request.steering)}


def _named(steering: Steering) -> dict[str, Any]:
    content = steering.vector.detach().float().cpu().contiguous().numpy().tobytes()
    return {"layer": steering.layer, "sha256": hashlib.sha256(content).hexdigest()}
