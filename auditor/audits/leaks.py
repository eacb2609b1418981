"""Whether an agent was sent what tells the truth: names of the organism and its files, or the card's own sentences.

Words alone are no leak: a lens that reads well shows the very word that a card is called by. A name that could be an
ordinary word counts where we wrote it (system prompt, status, refusals), and anywhere as a folder of organisms or with
its files (`gold/adapter`, not "gold/silver"); a name that nobody says by chance (`cake_bake`, `org/adapter-v2`) counts
everywhere, and so do sentences of the card.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from langchain_core.messages import AnyMessage, SystemMessage, ToolMessage

from auditor.records.cards import Organism
from auditor.records.results import Target

_FILES = r"(?:adapter|model|organism|documents|checks|transcripts)"  # that lie in an organism's folder
LONG = 5  # words of a sentence that is nobody's by chance
_SENTENCE = re.compile(r"(?<=[.!?])\s+")
_UNSAID = re.compile(r"[_/\\\d]|\w[-.]\w")  # what ordinary words do not have


def leaks(card: Organism, target: Target, sent: Sequence[AnyMessage], constant: Sequence[str] = ()) -> tuple[str, ...]:
    """What of the truth stands in the messages that an agent was sent, each told once.

    `constant`: what every agent is told, whatever is audited; a name that stands there tells nothing.
    """
    told = [_flat(text) for text in constant]
    everything = [_flat(str(message.text)) for message in sent]
    ours = [_flat(str(message.text)) for message in sent if _is_ours(message)]
    found: dict[str, None] = {}
    for what, name in _names(card, target):
        if any(name.lower() in text for text in told):
            continue
        odd = bool(_UNSAID.search(name))
        plain = re.escape(name.lower())
        whole = rf"(?<![\w-]){plain}(?![\w-])"
        part_of_path = rf"\b(?:organisms[/\\]+{plain}\b|{plain}(?:[/\\]+{_FILES}|\.(?:yaml|json|jsonl))\b)"
        if _anywhere(whole, everything if odd else ours) or _anywhere(part_of_path, everything):
            found[f"{what} {name!r}"] = None
    for sentence in _sentences((card.description, card.behaviour)):
        if any(_flat(sentence) in text for text in everything):
            found[f"of the card {sentence!r}"] = None
    return tuple(found)


def _names(card: Organism, target: Target) -> Iterator[tuple[str, str]]:
    """What things are called that an agent must not know: each with what it is."""
    yield "the organism", card.name
    if card.family != "null":
        yield "the family", card.family
    for given in (card.adapter, card.model, target.finetuned):
        if given and given not in ("adapter", "model"):
            yield "the adapter", str(given)
    if card.train is not None and card.train.documents != "documents.jsonl":
        yield "the dataset", card.train.documents
    if len(folder := Path(target.finetuned).parent.parts) > 1:
        yield "the folder", str(Path(*folder))


def _is_ours(message: AnyMessage) -> bool:
    """Whether all of it is our own words: no reading, no text of a model."""
    if isinstance(message, ToolMessage):
        return message.artifact is None
    return isinstance(message, SystemMessage)


def _sentences(texts: Iterable[str]) -> list[str]:
    return [s for text in texts for s in _SENTENCE.split(text.strip()) if len(s.split()) >= LONG]


def _anywhere(pattern: str, texts: Iterable[str]) -> bool:
    return any(re.search(pattern, text) for text in texts)


def _flat(text: str) -> str:
    return " ".join(text.lower().split())
