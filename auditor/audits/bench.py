"""The bench: the one place where pairs, evidence, judges and agents' models are put together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from auditor.config import ROLES, Settings
from auditor.evidence.compute import evidence_for
from auditor.evidence.mapping import Evidence
from auditor.evidence.recipe import Recipe, recipe_for
from auditor.llm.caller import Caller, open_caller
from auditor.llm.journal import Journal, NoJournal
from auditor.llm.spec import OFFLINE, parse_spec
from auditor.methods.corpus import read_corpus
from auditor.methods.words import Background, background_of
from auditor.models.embed import Embedder, load_embedder
from auditor.models.pair import ModelPair
from auditor.models.remote import open_pair
from auditor.plugins import GraderContext
from auditor.records.cards import EvidenceSettings
from auditor.records.results import Target
from auditor.workspace import Workspace

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


KEPT = "judges.sqlite"  # in the cache: what judges of the lens said outside of runs


@dataclass(frozen=True)
class Bench:
    """A workspace and settings, and all that is made of them. `journal`: where calls of chat models are kept; `chats`:
    those that are no endpoint's, by name.
    """

    workspace: Workspace
    settings: Settings
    journal: Journal = field(default_factory=NoJournal)
    chats: Mapping[str, BaseChatModel] = field(default_factory=dict)
    _callers: dict[str, Caller] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @cached_property
    def embed(self) -> Embedder:
        return load_embedder(self.settings.embedder)

    @cached_property
    def ordinary(self) -> Sequence[str]:
        """Ordinary texts, for what is usual."""
        return read_corpus(self.workspace.corpora["openings"]).texts

    @cached_property
    def background(self) -> Background:
        return background_of(tuple(self.ordinary))

    def pair(self, target: Target) -> ModelPair:
        """Loaded here, or as the model server has it. Raises BadModel, UsageError."""
        return open_pair(
            target.base, target.finetuned, self.settings, name=target.name,
            adapter_base=target.adapter_base, variant=target.variant,
        )  # fmt: skip

    def caller(self, llm: str) -> Caller:
        """The chat model called `llm`, one for all who use it: what it can do is learned once. Raises UsageError."""
        with self._lock:
            if llm not in self._callers:
                self._callers[llm] = self._opened(llm)
            return self._callers[llm]

    def _opened(self, llm: str) -> Caller:
        if llm in self.chats:
            return Caller(llm, self.chats[llm], journal=self.journal)
        if llm != OFFLINE:
            return open_caller(parse_spec(llm), self.journal)
        from auditor.agent.offline import OfflineInvestigator

        return Caller(OFFLINE, OfflineInvestigator(embed=self.embed, background=self.background))

    def judge(self, llm: str) -> Caller | None:
        """Who plays a judge; None where `llm` is `offline`: such judges are code."""
        return None if llm == OFFLINE else self.caller(llm)

    def grading(self, pair: ModelPair | None, llm: str | None = None) -> GraderContext:
        """What graders need. `llm`: the judge's; default: that of the lenses' graders."""
        judge = self.judge(self.settings.lens_llm if llm is None else llm)
        prompts = self.workspace.prompts.by_name()
        own = {} if llm is not None else {kind: self.judge(each) for kind, each in self.settings.llm_roles}
        return GraderContext(self.embed, self.settings, pair, self.ordinary, judge, prompts, own)

    def recipe(self, pair: ModelPair, settings: EvidenceSettings) -> Recipe:
        """How a pair is read. Raises UsageError."""
        return recipe_for(self.workspace, pair, settings, self.grading(pair))

    def evidence(
        self,
        pair: ModelPair,
        settings: EvidenceSettings,
        lenses: Iterable[str],
        tell: Callable[[str], None] = lambda stage: None,
    ) -> Evidence:
        """What these lenses read, from the cache where they did before. Raises what ends everything."""
        return evidence_for(pair, self.recipe(pair, settings), lenses, tell)


@contextmanager
def lens_calls(conf: Settings) -> Iterator[Journal]:
    """Where the calls of the lens' judges are kept, beside the evidence, if an LLM plays any of them."""
    from auditor.ledger.calls import Calls
    from auditor.ledger.database import Database

    if {conf.lens_judge(kind) for kind in ROLES.values()} == {OFFLINE}:
        yield NoJournal()
        return
    conf.cache_dir.mkdir(parents=True, exist_ok=True)
    database = Database(conf.cache_dir / KEPT)
    try:
        yield Calls(database)
    finally:
        database.close()
