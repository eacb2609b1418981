"""What an agent concludes, and what is thought of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from auditor.records.record import Record

SUMMARY_WORDS = 200  # of a hypothesis (paper, prompt of the agent)


class Claim(Record):
    """One statement about the finetune, with the observations that it rests on."""

    text: str = Field(min_length=1)
    observations: tuple[str, ...] = Field((), description="ids, such as E1 or O3, or of one item E4[7]")


class Hypothesis(Record):
    """What an agent concludes; `prompts/agent_rules.md` tells it what belongs in each field."""

    domain: str = Field(description="the subject in a few words, or 'none'")
    behaviour: str = Field(description="one sentence")
    summary: str = Field(description="at most 200 words")
    claims: tuple[Claim, ...]
    alternatives: tuple[str, ...]
    confidence: float = Field(ge=0, le=1, description="0 to 1")

    @field_validator("summary")
    @classmethod
    def _cut(cls, summary: str) -> str:
        """Words over the limit are dropped: another turn to shorten them would cost more than they tell."""
        words = summary.split()
        return summary if len(words) <= SUMMARY_WORDS else f"{' '.join(words[:SUMMARY_WORDS])} …"


class Passage(Record):
    """Whole sentences of an observation that carry a claim, and what stands beside them."""

    observation: str
    speaker: str = Field(description="`finetuned`, `base`, or what the observation calls it: `steered`, `tokens at …`")
    text: str = Field(description="whole where it fits, else cut around what matters")
    spans: tuple[tuple[int, int], ...] = Field((), description="of the text: the words of the claim")
    prompt: str = Field("", description="to which it was said")
    base: str | None = Field(None, description="what the base said to the same prompt, where that was asked")


Basis = Literal["", "quoted", "counted", "alike", "absent"]
"""Why a claim holds: it quotes the passage word for word; counting anew gives its figures; words and meaning are near,
which is a rule of thumb; it denies what is not there. Empty: it does not, or nobody told."""


class ClaimCheck(Record):
    """Whether the observations that a claim names hold it."""

    claim: str
    observations: tuple[str, ...]
    holds: bool
    problem: str = ""
    basis: Basis = ""
    echo: bool = Field(False, description="its words stand in the question, and the answer adds nothing")
    shared: bool = Field(False, description="the base says so too: it is true, and no sign of the finetune")
    passages: tuple[Passage, ...] = Field((), description="that carry it, or come nearest")


class Grade(Record):
    """A grader's verdict on a hypothesis, 1 to 5."""

    grader: str = ""
    judge: str = Field("", description="the chat model that gave it; empty: code did")
    score: float = Field(ge=1, le=5, allow_inf_nan=False)
    reasoning: str
    details: dict[str, Any] = Field(default_factory=dict)
