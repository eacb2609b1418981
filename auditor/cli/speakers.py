"""Who answers in `auditor ask`: both models as they are, and the finetune amplified or steered."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from auditor.cli.shared import stages, workspace
from auditor.config import Settings
from auditor.errors import NoBase, UsageError

if TYPE_CHECKING:
    from auditor.models.generate import Request, Steering
    from auditor.models.pair import ModelPair


@dataclass
class Speaker:
    """A column: who answers, in what way, and what was said to and by it."""

    key: str  # what it is called in JSON
    how: dict[str, Any]  # fields of a Request
    about: str = ""
    said: list[tuple[str, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{self.key} {self.about}".strip()


@dataclass
class Chat:
    """What is asked, how, and of whom."""

    pair: ModelPair
    request: Request  # but for prompt, seed and who is asked
    steering: Callable[[int, int, float], Steering]  # along δ at a layer and a position, with a strength
    plausibility: float
    seed: int
    speakers: list[Speaker] = field(default_factory=list)

    def __post_init__(self) -> None:
        from auditor.models.generate import Side

        sides = list(Side) if self.pair.has_base else [Side.FINETUNED]
        self.speakers = [Speaker(str(side), {"side": side}) for side in sides]

    def begin(self) -> None:
        """Forget what was said."""
        for speaker in self.speakers:
            speaker.said = []

    def amplify(self, alpha: float) -> None:
        """Put an amplified speaker beside the others. Raises UsageError, NoBase."""
        from auditor.models.generate import Amplification

        if not self.pair.has_base:
            raise NoBase
        self._join(Speaker("amplified", {"amplify": Amplification(alpha, self.plausibility)}, f"× {alpha:g}"))

    def steer(self, layer: int, position: int, alpha: float) -> None:
        """Put a steered speaker beside the others. Raises AuditorError."""
        push = self.steering(layer, position, alpha)
        self._join(Speaker("steered", {"steering": push}, f"{layer} {position} {alpha:g}"))

    def dismiss(self, key: str) -> None:
        self.speakers = [speaker for speaker in self.speakers if speaker.key != key]

    def _join(self, new: Speaker) -> None:
        """It has heard what the finetuned model heard, and said what that said."""
        new.said = list(next(speaker.said for speaker in self.speakers if speaker.key == "finetuned"))
        self.dismiss(new.key)
        self.speakers.append(new)

    def asked(self, speaker: Speaker, prompt: str, turn: int) -> Request:
        from auditor.models.generate import derive_seed

        seed, history = derive_seed(self.seed, turn), tuple(speaker.said)
        return replace(self.request, prompt=prompt, seed=seed, history=history, **speaker.how)

    def answer(self, prompt: str) -> list[str]:
        """What each speaker says, in its own conversation. Raises AuditorError, and nothing was said."""
        turn = len(self.speakers[0].said)
        texts = self.pair.generate([self.asked(speaker, prompt, turn) for speaker in self.speakers])
        for speaker, text in zip(self.speakers, texts, strict=True):
            speaker.said.append((prompt, text))
        return texts


def along(pair: ModelPair, conf: Settings) -> Callable[[int, int, float], Steering]:
    """Steerings along δ at a layer and position, which is measured if it was not yet."""

    def push(layer: int, position: int, alpha: float) -> Steering:
        """Raises UsageError for a place that is not there, NoBase, and what differences raise."""
        from auditor.audits.bench import Bench
        from auditor.methods.found import Differences

        if not pair.has_base:
            raise NoBase
        if not math.isfinite(alpha):
            raise UsageError(f"steer by {alpha}: give a number, such as 1")
        if not 0 <= layer < pair.n_layers or position < 0:
            raise UsageError(
                f"steer at {layer} {position}: there are layers 0 to {pair.n_layers - 1}, positions from 0"
            )
        ws = workspace()
        chosen = ws.suites["quickstart"].evidence
        if layer not in (pair.n_layers // 2, pair.n_layers - 1) or position > 4:
            chosen = chosen.over({"differences": {"layers": (layer,), "positions": max(5, position + 1)}})
        with stages("differences") as tell:
            found = Bench(ws, conf).evidence(pair, chosen, ["differences"], tell)
        return found.reading("differences", Differences).direction(layer, position).steering(alpha)

    return push
