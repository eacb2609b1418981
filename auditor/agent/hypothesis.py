"""The structured end of an audit: rendered for graders and people, and held against what was observed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from langchain_core.messages import AnyMessage, HumanMessage, ToolMessage

from auditor.agent.claims import figures, sentences
from auditor.models.embed import Embedder, Vectors
from auditor.records.findings import ClaimCheck, Hypothesis

NEAR = 0.25  # cosine to some sentence, or list of tokens, of an observation from which it can hold a claim
NOTHING = "No narrow finetune was found"
PIECE = 60  # words of an observation that are compared at once
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


def verify(found: Hypothesis, seen: Mapping[str, str], embed: Embedder) -> list[ClaimCheck]:
    """Mark each claim that its observations do not hold.

    A claim holds if it names observations that exist, if its figures occur in them, and if one of their
    sentences or token lists is near it.
    """
    named = {name for claim in found.claims for name in claim.observations} & seen.keys()
    vectors = {name: embed(_pieces(seen[name])) for name in sorted(named)}
    return [_check(claim.text, claim.observations, seen, vectors, embed) for claim in found.claims]


def _check(
    text: str, named: Sequence[str], seen: Mapping[str, str], vectors: Mapping[str, Vectors], embed: Embedder
) -> ClaimCheck:
    def verdict(problem: str) -> ClaimCheck:
        return ClaimCheck(claim=text, observations=tuple(named), holds=not problem, problem=problem)

    if not named:
        return verdict("names no observation")
    if unknown := [name for name in named if name not in seen]:
        return verdict(f"names {', '.join(unknown)}, which do not exist")
    evidence = " ".join(seen[name] for name in named)
    if absent := sorted(figures(text) - figures(evidence) - {"1", "2"}):
        numbers = {re.sub(r"\D", "", figure) for figure in figures(evidence)}
        if absent := [figure for figure in absent if re.sub(r"\D", "", figure) not in numbers]:
            return verdict(f"{', '.join(absent)} does not occur in {', '.join(named)}")
    claim = embed([text])[0]
    near = max(float((vectors[name] @ claim).max()) for name in named)
    return verdict("" if near >= NEAR else f"nothing like it in {', '.join(named)} (cosine {near:.2f})")


def _pieces(evidence: str) -> list[str]:
    """Sentences, and runs of words for what has none, such as token lists."""
    try:
        plain = " ".join(_strings(json.loads(evidence)))
    except json.JSONDecodeError:
        plain = evidence
    words = plain.split()
    runs = [" ".join(words[i : i + PIECE]) for i in range(0, len(words), PIECE // 2)]
    return [*sentences(plain), *runs] or [evidence or "."]


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        return [s for item in value.values() for s in _strings(item)]
    return [s for item in value for s in _strings(item)] if isinstance(value, list) else []


def _sources(named: Sequence[str]) -> str:
    return f" [{', '.join(named)}]" if named else ""


def _closed(text: str) -> str:
    return text if text.rstrip().endswith((".", "!", "?")) else f"{text.rstrip()}."
