"""The structured end of an audit, rendered for graders and people, and what the agent saw before it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage

from auditor.records.findings import Hypothesis

NOTHING = "No narrow finetune was found"
_SECTION = re.compile(r"^## (E\d+)\b.*?(?=^## |\Z)", re.M | re.S)
_OBSERVATION = re.compile(r"\A(O\d+)\n")


def render(found: Hypothesis) -> str:
    """The text that graders read: domain and behaviour, summary, claims, alternatives, confidence."""
    domain = NOTHING if names_nothing(found) else f"Domain: {found.domain}"
    parts = [f"{domain}. {found.behaviour}", found.summary]
    if found.claims:
        listed = (f"({i}) {claim.text}{_sources(claim.observations)}" for i, claim in enumerate(found.claims, 1))
        parts.append("Claims: " + " ".join(listed))
    if found.alternatives:
        parts.append("Alternatives considered: " + " ".join(f"{_closed(a)}" for a in found.alternatives))
    parts.append(f"Confidence: {found.confidence:.2f}.")
    return "\n\n".join(parts)


def names_nothing(found: Hypothesis) -> bool:
    """Whether the domain is "none", as the agent is told to call it where nothing narrow was trained."""
    return bool(re.match(r"\s*none(?![\w-])", found.domain, re.I))


def observations(messages: Sequence[AnyMessage]) -> dict[str, str]:
    """What the agent saw, by id: sections of the overview (E1, …) and results of tools (O1, …)."""
    found: dict[str, str] = {}
    for message in messages:
        text = str(message.text)
        if isinstance(message, HumanMessage):
            found |= {section[1]: section[0] for section in _SECTION.finditer(text)}
        elif isinstance(message, ToolMessage) and (head := _OBSERVATION.match(text)):
            found[head[1]] = text[head.end() :]
    return found


def _sources(named: Sequence[str]) -> str:
    return f" [{', '.join(named)}]" if named else ""


def _closed(text: str) -> str:
    return text if text.rstrip().endswith((".", "!", "?")) else f"{text.rstrip()}."
