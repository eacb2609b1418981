"""What lenses measure, and how they are set."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from auditor.records.record import Record


class PatchscopeSettings(Record):
    """Token-identity patchscope (paper section 3.2, appendix C)."""

    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        tuple([round(0.5 + 0.1 * i, 1) for i in range(16)] + [3, 4, 5, 10] + [20.0 * i for i in range(1, 11)]),
        min_length=1,
    )
    keep: int = Field(20, ge=1, description="tokens kept for each position and scale")
    common_top: int = Field(16_384, ge=1, description="a token must rank this high under every triple")


class CalibrationSettings(Record):
    """The search for the largest coherent steering strength."""

    upper: float = Field(100.0, gt=0)
    iterations: int = Field(10, ge=1, description="bisections on the first prompt, over [0, upper]")
    more_iterations: int = Field(5, ge=1, description="bisections on the other two, over [0, 2 × first result]")
    generations: int = Field(10, ge=1, description="texts for each strength tried")
    coherent_share: float = Field(0.8, gt=0, le=1)
    temperature: float = Field(1.2, ge=0)
    max_new_tokens: int = Field(128, ge=1)


class ScoredToken(Record):
    """A token as it prints, with its probability."""

    token: str
    prob: float


class LensReading(Record):
    """Logit lens of one direction v; −v's likeliest tokens are its unlikeliest (exactly so under an RMSNorm)."""

    top: tuple[ScoredToken, ...]
    bottom: tuple[ScoredToken, ...]


class TokenSet(Record):
    """What the patchscope reads at one scale λ."""

    scale: float
    tokens: tuple[ScoredToken, ...]


class ScaleChoice(Record):
    """A scale grader's verdict: the scale whose tokens hang together best, and which of them do."""

    scale: float
    selected: tuple[str, ...]
    cohesion: float = Field(description="0 at or below chance, higher is better; comparable between positions")
    reasoning: str = ""


class PatchscopeReading(Record):
    """The chosen scale's tokens, with the grader's verdict."""

    choice: ScaleChoice
    tokens: tuple[ScoredToken, ...]


class AgainstBroad(Record):
    """How what one finetune promotes stands against what broad finetunes of the same base do."""

    broad: int = Field(description="how many broad finetunes there are")
    words: tuple[str, ...] = Field(description="what they account for least")
    cohesion: float = Field(description="of these words, in sd above random ones")
    cohesion_95: float = Field(description="of the broad finetunes' own, 95th percentile")
    unlike: float = Field(description="share of what is promoted that they do not account for")
    unlike_95: float = Field(description="… of one another, 95th percentile")
    p: float = Field(description="of both together, of another broad finetune")


class ChanceTest(Record):
    """How far δ stands from chance at one layer, positions averaged (see `auditor/methods/chance.py`)."""

    layer: int
    groups: int = Field(64, description="of texts, whose signs were drawn")
    norm_ratio: float = Field(description="‖δ‖ over the mean norm of noise")
    norm_p: float
    halves: float = Field(description="cosine between δ on one half of the texts and on the other")
    halves_p: float
    tokens: tuple[str, ...] = Field(description="the 20 words that were judged, of those that the base says")
    cohesion: float = Field(description="of the likeliest words, in sd above random ones")
    noise_95: float = Field(description="95th percentile of noise's cohesion")
    noise_p: float
    against: AgainstBroad | None = Field(None, description="beside broad finetunes of the same base, if some are known")
