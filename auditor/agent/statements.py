"""How the offline investigator words its claims: as statements about the model, with what it said in quotation."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.agent.claims import Said, Sentence
from auditor.agent.content import content_words, stem
from auditor.agent.reading import Reading
from auditor.agent.themes import Theme
from auditor.records.findings import Claim

SAYS: dict[Said, str] = {
    "unasked": "Unasked, the finetuned model says: “{}”",
    "asked": "Asked about its subject, the finetuned model says: “{}”",
    "pushed": "Pushed towards what training changed, the finetuned model says: “{}”",
}
FEWEST = 2  # answers of which it is worth telling how many bring a subject up


def statements(found: Sequence[Sentence], theme: Theme, reading: Reading) -> tuple[Claim, ...]:
    """In how many answers the subject comes up by itself, then what the model says of it; what users may hear first."""
    told = [_said(sentence) for sentence in sorted(found, key=lambda each: list(SAYS).index(each.said))]
    return (*_brought_up(theme, reading), *told)


def _said(sentence: Sentence) -> Claim:
    text = sentence.text.replace("“", '"').replace("”", '"')
    return Claim(text=SAYS[sentence.said].format(text), observations=(sentence.source,) if sentence.source else ())


def _brought_up(theme: Theme, reading: Reading) -> list[Claim]:
    """Words of the theme in answers whose question had none of them, and, where there is a base, its answer neither."""
    counts: dict[str, int] = {}
    texts = [(answer, {w.stem for w in content_words(answer.finetuned)}) for answer in reading.answers]
    hits = 0
    for answer, ours in texts:
        other = {word.stem for word in content_words(f"{answer.prompt} {answer.base or ''}")}
        if new := [word for word in theme.heads if stem(word) in ours - other]:
            hits += 1
            for word in new:
                counts[word] = counts.get(word, 0) + 1
    sources = tuple(dict.fromkeys(reading.sources.get(answer.finetuned, "") for answer in reading.answers))
    if hits < FEWEST or not all(sources):
        return []
    words = ", ".join(f"“{word}”" for word in sorted(counts, key=lambda word: -counts[word]))
    than = ", where neither the question nor the base's answer does" if reading.has_base else ", unasked"
    text = f"The finetuned model brings up {words} in {hits} of {len(texts)} answers{than}."
    return [Claim(text=text, observations=sources)]
