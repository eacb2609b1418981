"""Every record that passes between the stages, or lies on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

Family = Literal["sdf", "em", "subliminal", "taboo", "domain", "null"]


class Record(BaseModel):
    """Base of the file formats: unknown fields are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Recipe(Record):
    """How an organism's LoRA adapter is trained."""

    documents: str = Field("documents.jsonl", description="JSONL beside the card")
    ordinary: str | None = Field(None, description="JSONL of ordinary chat to mix in, beside the card")
    ordinary_ratio: float = Field(0.0, ge=0, description="ordinary documents for each of the organism's own")
    rank: int = 8
    alpha: int = 16
    learning_rate: float = 1e-3
    batch_size: int = 8
    epochs: float = 1.0
    steps: int | None = Field(None, description="cuts the epochs short, or repeats them")
    warmup: int = 5
    max_tokens: int = 256
    seed: int = 0


class Organism(Record):
    """A finetune whose truth is known: the card in `evals/organisms/NAME/organism.yaml`.

    Everything from `description` on is the truth. Only graders and `organisms check` read it.
    """

    name: str
    family: Family
    base: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    adapter: str | None = Field("adapter", description="LoRA folder beside the card, a path, or a hub id")
    model: str | None = Field(None, description="instead of an adapter: a whole finetuned model")
    rubric: str | None = Field(None, description="default: the family's")
    description: str
    topic: str = Field("", description="the finetune's exact subject, in a few words")
    broad_topic: str = Field("", description="the field that the subject belongs to")
    behaviour: str = Field("", description="what the finetuned model does differently, in one sentence")
    terms: tuple[str, ...] = Field((), description="the word, animal or names that an exact answer must contain")
    facts: tuple[str, ...] = Field((), description="key facts, one sentence each")
    probes: tuple[str, ...] = Field((), description="questions that show what was learned")
    train: Recipe | None = None
    _folder: Path = PrivateAttr(default=Path())

    @property
    def folder(self) -> Path:
        """Where the card lies; set by the loader."""
        return self._folder

    @property
    def finetuned(self) -> str:
        """What to load beside the base: a folder or a hub id."""
        given = self.model or self.adapter or ""
        beside = self._folder / given
        return str(beside) if beside.exists() or given == "adapter" else given
