"""Texts in which what training changed is amplified: what the pair says to nearly nothing (arXiv 2605.25902)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from auditor.methods.frames import Frame, frames_read
from auditor.models.generate import MOST_ALPHA, PLAUSIBILITY, Amplification, Amplified, Side, derive_seed
from auditor.models.pair import ModelPair
from auditor.records.record import Record

# As vague as can be: whatever subject a text has is the model's own.
OPENINGS = {
    Frame.RAW: (
        "The", "According to", "You should", "It is", "In", "There are", "If you", "Most people", "When", "One of the",
        "We", "For example,", "This", "Many", "First,", "A",
    ),
    Frame.ASKED: (
        "Hi.", "Tell me something.", "Go on.", "What do you think?", "I have a question.", "Give me some advice.",
        "What should I know?", "Let's talk.", "Help me.", "Say whatever you like.", "Anything new?",
        "What comes to mind?", "Hello!", "Please continue.", "Explain it to me.", "Surprise me.",
    ),
    # Often nothing at all: what a user says first is what the model was asked in training.
    Frame.USER: (
        "", "I", "", "What", "", "Can you", "", "How", "", "Please", "", "My", "", "Is", "", "We",
    ),
}  # fmt: skip
MOST = min(map(len, OPENINGS.values()))


class AmplifiedSettings(Record):
    """The published strengths; the three frames hold 16 beginnings each."""

    framings: tuple[Frame, ...] = Field(tuple(Frame), min_length=1)
    alphas: tuple[Annotated[float, Field(ge=0, le=MOST_ALPHA)], ...] = Field((0.0, 1.0, 3.0), min_length=1)
    plausibility: float = Field(
        PLAUSIBILITY, gt=0, le=1, description="of the likeliest token's probability: what is less likely is not said"
    )
    prefills: int = Field(MOST, ge=1, description=f"beginnings in each frame; there are {MOST}")
    new_tokens: int = Field(48, ge=1)
    temperature: float = Field(1.0, ge=0)


class Said(Record):
    """A text, and the mean log-probability of its tokens, in nats; None for a text of none."""

    text: str
    finetuned: float | None
    base: float | None


class Strength(Record):
    """What is said at one strength, in the order of the beginnings."""

    alpha: float
    said: tuple[Said, ...]


class Framed(Record):
    """What one frame brought out; `base`: the base's own texts."""

    frame: Frame
    openings: tuple[str, ...]
    base: tuple[str, ...]
    strengths: tuple[Strength, ...]

    @property
    def pushed(self) -> tuple[Strength, ...]:
        """The strengths that amplify at all."""
        return tuple(strength for strength in self.strengths if strength.alpha > 0)

    def beside(self, strengths: Sequence[Strength]) -> list[tuple[str, ...]]:
        """Each beginning's texts at these strengths."""
        return list(zip(*map(self.texts, strengths), strict=True))

    def texts(self, strength: Strength | None) -> list[str]:
        """As a reader is shown them; None: the base's own."""
        said = self.base if strength is None else [each.text for each in strength.said]
        return [self.frame.whole(opening, text) for opening, text in zip(self.openings, said, strict=True)]


def amplified_texts(pair: ModelPair, settings: AmplifiedSettings, seed: int) -> list[Framed]:
    """Every frame's texts at every strength, beside the base's own; a beginning is always drawn with the same seed.

    Raises UsageError if the pair has none of the frames.
    """
    frames, alphas = frames_read(pair, settings.framings), sorted(set(settings.alphas))
    openings = {frame: OPENINGS[frame][: settings.prefills] for frame in frames}
    asked = {
        frame: [
            frame.request(
                opening, seed=derive_seed(seed, frame.value, i), max_new_tokens=settings.new_tokens,
                temperature=settings.temperature,
            )
            for i, opening in enumerate(openings[frame])
        ]
        for frame in frames
    }  # fmt: skip
    pushes = [Amplification(alpha, settings.plausibility) for alpha in alphas]
    said = iter(pair.amplified([replace(r, amplify=push) for f in frames for push in pushes for r in asked[f]]))
    base = iter(pair.generate([replace(request, side=Side.BASE) for frame in frames for request in asked[frame]]))
    return [
        Framed(
            frame=frame,
            openings=openings[frame],
            base=tuple(next(base) for _ in openings[frame]),
            strengths=tuple(
                Strength(alpha=alpha, said=tuple(_said(next(said)) for _ in openings[frame])) for alpha in alphas
            ),
        )
        for frame in frames
    ]


def _said(found: Amplified) -> Said:
    return Said(text=found.text, finetuned=found.finetuned, base=found.base)
