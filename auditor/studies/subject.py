"""An organism on the bench: its pair, what is read of it, its finetuning data, and who judges its tokens."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from auditor.audits.bench import Bench
from auditor.audits.plan import target_of
from auditor.config import Settings
from auditor.errors import UsageError
from auditor.evidence.compute import Report, evidence_for
from auditor.evidence.mapping import Evidence
from auditor.evidence.recipe import Recipe
from auditor.lenses import LensContext
from auditor.llm.at_once import all_of
from auditor.llm.caller import Caller
from auditor.llm.spec import OFFLINE
from auditor.methods.datasets import kept_rows
from auditor.methods.diff import Difference
from auditor.methods.found import PatchedAt, PromotedAt
from auditor.methods.reads import patched_at, promoted_at
from auditor.methods.relevance import Judge, frequent_words
from auditor.methods.words import background_of
from auditor.models.generate import derive_seed
from auditor.models.local import LocalPair
from auditor.models.pair import ModelPair
from auditor.records.cards import EvidenceSettings, Organism
from auditor.records.public import Dataset
from auditor.training.documents import Document, read_documents
from auditor.workspace import Workspace

ROWS = 1000  # of a dataset: as many as a study draws from
CHATS = "chats"  # the corpus of ordinary chats


@dataclass(frozen=True, slots=True)
class Subject:
    """One organism, loaded."""

    card: Organism
    pair: LocalPair
    recipe: Recipe
    documents: tuple[Document, ...]
    judge: Judge

    def drawn(self, n: int) -> list[Document]:
        """`n` of its documents, drawn with the settings' seed (all of them if there are fewer)."""
        if n >= len(self.documents):
            return list(self.documents)
        return random.Random(derive_seed(self.recipe.settings.seed, "documents")).sample(self.documents, n)

    def settings(self, lens: str) -> Any:
        """Those of a lens, as the suite says."""
        return self.recipe.settings_of(self.recipe.lenses[lens])

    def grader(self, lens: str, field: str) -> Callable[..., Any]:
        """The one that a lens' settings name in `field`."""
        return self._context(lens).grader(getattr(self.settings(lens), field))

    def grader_of_each(self, lens: str, field: str) -> Callable[[Sequence[Any]], list[Any]]:
        """The same for many values."""
        return self._context(lens).grader_of_each(getattr(self.settings(lens), field))

    def _context(self, lens: str) -> LensContext:
        return self.recipe.context(self.recipe.lenses[lens], {}, lambda stage: None)

    def evidence(self, names: Sequence[str], report: Report) -> Evidence:
        """What these lenses read, from the cache if it was computed before. Raises UsageError if one did not."""
        found = evidence_for(self.pair, self.recipe, names, report)
        if found.failed:
            name, reason = next(iter(found.failed.items()))
            raise UsageError(f"{self.card.name}: {name} was not read: {reason}")
        return found


def subject_of(bench: Bench, card: Organism, settings: EvidenceSettings, data: str | None = None) -> Subject:
    """Load an organism, of a workspace or not; `data`: what it was trained on, instead of what its card says.

    Raises UsageError.
    """
    documents = tuple(finetuning_data(bench.workspace, card, bench.settings, data))
    pair = bench.pair(target_of(card))
    assert isinstance(pair, LocalPair)
    recipe = bench.recipe(pair, settings)
    grading = recipe.grading
    grader = bench.workspace.graders[relevance_judge(bench.settings)]
    grading = grading.for_kind(grader.kind)
    frequent = frequent_words(documents, background_of(tuple(grading.background)))
    judge = partial(_judged, lambda tokens: grader.run(tokens, card, frequent, grading), grading.llm)
    return Subject(card, pair, recipe, documents, judge)


def has_data(card: Organism, data: str | None = None) -> bool:
    """Whether it is known what an organism was trained on."""
    return data is not None or card.train is not None or card.dataset is not None


def finetuning_data(ws: Workspace, card: Organism, conf: Settings, data: str | None = None) -> list[Document]:
    """What an organism was trained on: `data`, documents beside its card, or rows of its dataset; none if nothing is
    known. Raises UsageError, BadFile.
    """
    if data is not None:
        return documents_of(ws, conf, data)
    if card.train is not None:
        return read_documents(card.beside(card.train.documents))
    return read_documents(kept_rows(card.dataset, ROWS, conf.cache_dir)) if card.dataset is not None else []


def documents_of(ws: Workspace, conf: Settings, name: str) -> list[Document]:
    """JSON lines of texts or chats: a file, or a dataset of the hub by name or id. Raises UsageError, BadFile."""
    if name in ws.datasets:
        return read_documents(kept_rows(ws.datasets[name], ROWS, conf.cache_dir))
    if not Path(name).exists() and (dataset := Dataset.parse(name)):
        return read_documents(kept_rows(dataset, ROWS, conf.cache_dir))
    return read_documents(Path(name))


def reference_chats(ws: Workspace, conf: Settings, chat: str | None = None) -> list[Document]:
    """Ordinary chats; by default those that nothing bundled was trained on. Raises UsageError, BadFile."""
    return read_documents(ws.corpora[CHATS]) if chat is None else documents_of(ws, conf, chat)


def read_layer(
    subject: Subject, pair: ModelPair, diff: Difference, *, patch: bool
) -> tuple[PromotedAt, PatchedAt | None]:
    """One layer by logit lens, and with `patch` by patchscope."""
    settings, scales = subject.settings("logit_lens"), subject.grader_of_each("patchscope", "scale_grader")
    promoted = promoted_at(pair, diff, settings.tokens, settings.means)
    patched = patched_at(pair, diff, subject.settings("patchscope"), scales) if patch else None
    return promoted, patched


def relevance_judge(conf: Settings) -> str:
    """The grader of token relevance: the LLM's if the settings name one for the lens."""
    return "token_relevance_offline" if conf.lens_judge("token_relevance") == OFFLINE else "token_relevance_llm"


def _judged(
    run: Callable[[Sequence[str]], Sequence[bool]], llm: Caller | None, lists: Sequence[Sequence[str]]
) -> list[list[bool]]:
    """A hundred tokens a call: as many as an LLM can be asked about at once. Its calls are made side by side."""
    parts = [(i, tokens[start : start + 100]) for i, tokens in enumerate(lists) for start in range(0, len(tokens), 100)]
    asked = [part for _, part in parts]
    found: list[list[bool]] = [[] for _ in lists]
    for (i, _), verdicts in zip(parts, map(run, asked) if llm is None else all_of(asked, run, llm), strict=True):
        found[i] += verdicts
    return found
