"""The chat model that plays a role: any that LangChain can make, or the offline investigator."""

from __future__ import annotations

from auditor.llm.caller import Caller, open_caller
from auditor.llm.journal import Journal, NoJournal
from auditor.llm.spec import OFFLINE, parse_spec
from auditor.methods.words import Background
from auditor.models.embed import Embedder


def make_caller(name: str, embed: Embedder, background: Background, journal: Journal | None = None) -> Caller:
    """`offline`, or a model string as `ModelSpec` reads it.

    Raises UsageError if an option is wrong, or the provider, its package or its key is missing.
    """
    if name == OFFLINE:
        from auditor.agent.offline import OfflineInvestigator

        return Caller(OFFLINE, OfflineInvestigator(embed=embed, background=background), journal=NoJournal())
    return open_caller(parse_spec(name), journal)
