"""An organism on the bench: its pair, its sheet, its finetuning data, and who judges its tokens."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial

from auditor.config import Settings
from auditor.errors import UsageError
from auditor.evidence import evidence_for, grading_for, make_lens
from auditor.lens.relevance import Judge, frequent_words
from auditor.lens.words import background_of
from auditor.llm.spec import OFFLINE
from auditor.models.generate import derive_seed
from auditor.models.load import load_pair
from auditor.models.pair import LocalPair
from auditor.sheet import Lens, Report
from auditor.training.documents import Document, read_documents
from auditor.types import Evidence, EvidenceSettings, Organism
from auditor.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Subject:
    """One organism, loaded."""

    card: Organism
    pair: LocalPair
    lens: Lens
    documents: tuple[Document, ...]
    judge: Judge

    def drawn(self, n: int) -> list[Document]:
        """`n` of its documents, drawn with the settings' seed (all of them if there are fewer)."""
        if n >= len(self.documents):
            return list(self.documents)
        return random.Random(derive_seed(self.lens.settings.seed, "documents")).sample(self.documents, n)

    def sheet(self, report: Report) -> Evidence:
        """Its evidence, from the cache if it was computed before."""
        return evidence_for(self.pair, self.lens, report).evidence


def open_subject(ws: Workspace, conf: Settings, name: str, settings: EvidenceSettings) -> Subject:
    """Load an organism. Raises UsageError if its finetuning documents are not beside its card."""
    card = ws.organisms[name]
    if card.train is None:
        raise UsageError(f"organism {name} has no `train:` in its card, and so no finetuning data to compare with")
    documents = tuple(read_documents(card.folder / card.train.documents))
    pair = load_pair(card.base, card.finetuned, conf, name=name, variant=card.variant)
    grading = grading_for(ws, conf, pair)
    grader = ws.graders[relevance_judge(conf)]
    frequent = frequent_words(documents, background_of(tuple(grading.background)))
    judge = partial(_judged, lambda tokens: grader.run(tokens, card, frequent, grading))
    return Subject(card, pair, make_lens(ws, pair, settings, grading), documents, judge)


def relevance_judge(conf: Settings) -> str:
    """The grader of token relevance: the LLM's if the settings name one for the lens."""
    return "token_relevance_offline" if conf.lens_llm == OFFLINE else "token_relevance_llm"


def _judged(run: Judge, tokens: list[str]) -> list[bool]:
    """A hundred tokens a call: as many as an LLM can be asked about at once."""
    return [verdict for start in range(0, len(tokens), 100) for verdict in run(tokens[start : start + 100])]
