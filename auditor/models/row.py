"""One text on its way through a live batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from statistics import fmean

from auditor.models.generate import Amplification, Sampling, Steering


def _started() -> Future[None]:
    """A future that whoever waits for it cannot cancel: rows leave by `gone`."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


@dataclass(eq=False)
class Row:
    """One text on its way: `out` grows by a token a step, until `finish` says why it ended.

    `heard` is called after every token, in the thread that decodes; it may end the row by returning True.
    """

    prompt: Sequence[int]
    sampling: Sampling
    adapter: str = ""  # empty: the base
    steering: Steering | None = None
    alternatives: int | None = None  # log-probabilities of each token and of so many others
    heard: Callable[[Row], bool] | None = None
    stops: frozenset[int] = frozenset()  # tokens that end it, beside the model's own
    beside: Beside | None = None  # if it is amplified
    verbatim: bool = False  # its text keeps the white space that it begins and ends with
    follows: bool = False  # it is beside an amplified one, whose tokens it reads
    out: list[int] = field(default_factory=list)
    logprobs: list[tuple[float, list[tuple[int, float]]]] = field(default_factory=list)
    shift: float | None = None  # what steering added to the prompt's residual stream, measured: mean L2 norm
    finish: str = ""  # "stop" or "length"
    gone: bool = False  # nobody waits for it any more; may be set from any thread
    ended: Future[None] = field(default_factory=_started)
    begins: list[int] = field(default_factory=list)  # of the noise windows of each step

    @property
    def kind(self) -> tuple[str, Steering | None]:
        """Rows of one kind read the same tokens alike."""
        return self.adapter, self.steering

    @property
    def places(self) -> int:
        """How many rows are decoded for it."""
        return 1 if self.beside is None else 2

    def take(self, token: int, stops: frozenset[int]) -> None:
        """Say its next token, or end."""
        if token in stops or token in self.stops:
            self.finish = "stop"
            return
        self.out.append(token)
        try:
            if self.heard is not None and self.heard(self):
                self.finish = "stop"
        except Exception as error:
            self.fail(error)
        if len(self.out) >= self.sampling.max_new_tokens:
            self.finish = self.finish or "length"

    def fail(self, error: BaseException) -> None:
        self.finish = "error"
        if not self.ended.done():
            self.ended.set_exception(error)

    def close(self) -> None:
        """Tell whoever waits that it has ended."""
        if not self.ended.done():
            self.ended.set_result(None)


@dataclass(eq=False)
class Beside:
    """The base's row beside an amplified one: they enter and leave together, and read the same tokens."""

    row: Row
    how: Amplification
    unknown: frozenset[int] = frozenset()  # tokens that the base does not know
    likelihoods: list[tuple[float, float]] = field(default_factory=list)  # of each token: the finetune's, the base's


def likelihood(rows: Sequence[Row]) -> tuple[float, float] | None:
    """Mean log-probability of what amplified `rows` say, in nats a token: by the finetune, by the base."""
    said = [both for row in rows if row.beside is not None for both in row.beside.likelihoods]
    return (fmean(own for own, _ in said), fmean(base for _, base in said)) if said else None
