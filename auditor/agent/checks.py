"""Whether what a claim says follows from the passages that it names: by quotation, count, or words and meaning.

A rule, no reader. What it finds by words and meaning is likely, not sure, and says so (`basis`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from auditor.agent.claims import figures
from auditor.agent.content import Span, Word, around, content_words, merged, quoted, where_said, without_quotes
from auditor.agent.observed import BASE, Piece, Utterance, part_of, pieces_of, utterances, whole
from auditor.claimed import asserted, denies
from auditor.models.embed import Embedder
from auditor.readings import Section
from auditor.records.findings import Claim, ClaimCheck, Hypothesis, Passage

# Set while looking at tests/data/desk and at reports of gold and of a finetune that hides; no labels were held out.
NEAR = 0.25  # cosine to some passage from which it can hold a claim
COVERED = 0.5  # share of a claim's own words that its passages must have, or words near to them
ALIKE = 0.6  # cosine of two words that mean nearly the same
SAME = 0.8  # cosine with a sentence of the base from which a passage says the same in other words
PASSAGES = 3  # that one claim may be put together from
PASSAGE, BESIDE = 600, 400  # characters of a passage, and of the base's answer beside it
LITERAL = 3  # words from which a quotation must stand there word for word
_COUNT = re.compile(r"\b(\d+) of (?:its |the |all |our )?(\d+)\b")
_OF_BASE = re.compile(r"\b(?:base|both|neither)\b", re.I)


def verify(
    found: Hypothesis, seen: Mapping[str, str], embed: Embedder, sections: Mapping[str, Section] | None = None
) -> list[ClaimCheck]:
    """Each claim held against what it names of `seen`, by id; `sections`: those of the overview, as they were read.

    A claim holds if it names observations that exist and their passages have what it says: its quotations word for
    word, its counts when they are counted anew, its figures, and half of its own words, or words near to them, in
    sentences whose meaning is near. Words that stand in the question are no evidence for it.
    """
    named = {name for claim in found.claims for name in claim.observations if whole(name) in seen}
    all_said = {name: utterances(name, seen[name], (sections or {}).get(name)) for name in sorted(map(whole, named))}
    said = {name: part for name in sorted(named) if (part := part_of(name, all_said[whole(name)])) or name in seen}
    return [_check(claim, said, embed) for claim in found.claims]


def _check(claim: Claim, said: Mapping[str, Sequence[Utterance]], embed: Embedder) -> ClaimCheck:
    named = claim.observations
    blank = ClaimCheck(claim=claim.text, observations=named, holds=False)

    def lacks(problem: str) -> ClaimCheck:
        return blank.model_copy(update={"problem": problem})

    if not named:
        return lacks("names no observation")
    if unknown := [name for name in named if name not in said]:
        return lacks(f"names {', '.join(unknown)}, which do not exist")
    there = [each for name in named for each in said[name]]
    if (counted := _counted(claim.text, there, blank)) is not None:
        return counted
    if absent := _absent_figures(claim.text, there):
        return lacks(f"{', '.join(absent)} does not occur in {', '.join(named)}")
    asked = " ".join({each.prompt for each in there})
    quotes = [q for q in quoted(claim.text) if len(q.split()) >= LITERAL and where_said(q, asked) is None]
    places = {quote: _said_where(quote, there) for quote in quotes}
    if lost := [quote for quote, place in places.items() if place is None]:
        return lacks(f"“{lost[0]}” does not stand in {', '.join(named)}")
    literal = [place for place in places.values() if place is not None]
    return _judged(there, quotes, literal, blank, embed)


def _judged(
    there: Sequence[Utterance], quotes: Sequence[str], literal: Sequence[Piece], blank: ClaimCheck, embed: Embedder
) -> ClaimCheck:
    """By its words: in the passages of its quotations first, then in those that are nearest."""
    text = blank.claim
    wanted = content_words(text)
    pieces = [piece for each in there for piece in pieces_of(each)]
    about_base = bool(_OF_BASE.search(without_quotes(text)))
    if not about_base:
        pieces = [piece for piece in pieces if piece.of.speaker != BASE] or pieces
    near, cosine = _Near(embed, wanted), 1.0
    chosen = list(literal)
    if not chosen or near.missing(chosen):
        cosines = embed([piece.text or "." for piece in pieces]) @ embed([text])[0] if pieces else [0.0]
        nearest = max(map(float, cosines))
        cosine = 1.0 if literal else nearest
        chosen = _chosen(pieces, list(map(float, cosines)), near, chosen)
    passages = tuple(_passage(piece, near, quotes) for piece in chosen)
    own = near.own(chosen)  # of the claim's words, those that no question gave
    share = _weight(near.covered(chosen)) / _weight(own) if own else 0.0
    told = blank.model_copy(update={"passages": passages})
    if not own and near.covered_at_all(chosen):
        return told.model_copy(update={"echo": True, "problem": "only echoes the question"})
    if (share >= COVERED or (not wanted and cosine >= 2 * NEAR)) and cosine >= NEAR:
        shared = not about_base and all(near.in_base(piece) or _no_more(piece, embed) for piece in chosen)
        return told.model_copy(update={"holds": True, "basis": "quoted" if literal else "alike", "shared": shared})
    if not about_base and _only_denies(text, own) and not near.covered(chosen):
        return told.model_copy(update={"holds": True, "basis": "absent", "passages": ()})
    names = ", ".join(blank.observations)
    if near.echoed(chosen) and not near.covered(chosen):
        return told.model_copy(update={"echo": True, "problem": "only echoes the question"})
    lost = [word.text for word in own if word.stem not in {w.stem for w in near.covered(chosen)}]
    what = f"nothing of {', '.join(lost[:6])}" if near.covered(chosen) and lost else "nothing like it"
    return told.model_copy(update={"problem": f"{what} in {names}"})


def _no_more(piece: Piece, embed: Embedder) -> bool:
    """Whether the base's answer to the same question has a sentence that says what the passage says.

    Embeddings see neither figures nor negations: one with other figures, or that denies what the other says, says more.
    """
    said = piece.of
    if not said.base or figures(piece.text) - figures(said.base):
        return False
    base = [part.text for part in pieces_of(Utterance(said.observation, BASE, said.base))]
    own = embed([piece.text])[0]
    cosines = embed(base) @ own
    nearest = base[int(cosines.argmax())]
    return float(cosines.max()) >= SAME and denies(nearest) == denies(piece.text)


def _weight(words: Sequence[Word]) -> int:
    """A figure tells more than a word."""
    return sum(2 if word.text[0].isdigit() else 1 for word in words)


def _only_denies(text: str, own: Sequence[Word]) -> bool:
    """Whether all that the claim says by itself is that something is not there."""
    plain = without_quotes(text)
    said = {word.stem for word in content_words(asserted(plain))}
    return denies(plain) and not said & {word.stem for word in own}


class _Near:
    """Which words of one claim a passage has, itself or by a word of nearly the same meaning."""

    def __init__(self, embed: Embedder, wanted: Sequence[Word]) -> None:
        self.wanted = list({word.stem: word for word in wanted}.values())
        self._embed = embed
        self._vectors = embed([word.text for word in self.wanted]) if self.wanted else None
        self._known: dict[str, dict[str, list[Span]]] = {}

    def at(self, text: str) -> dict[str, list[Span]]:
        """By stem of the claim's words: the spans of a text that have them."""
        if text not in self._known:
            self._known[text] = self._found(text)
        return self._known[text]

    def _found(self, text: str) -> dict[str, list[Span]]:
        words, found = content_words(text), dict[str, list[Span]]()
        stems = {word.stem for word in self.wanted}
        for word in words:
            if word.stem in stems:
                found.setdefault(word.stem, []).append(word.span)
        open_ones = [i for i, word in enumerate(self.wanted) if word.stem not in found and word.text.isalpha()]
        others = [word for word in words if word.stem not in stems and word.text.isalpha()]
        if open_ones and others and self._vectors is not None:
            cosines = self._vectors[open_ones] @ self._embed([word.text for word in others]).T
            for i, row in zip(open_ones, cosines, strict=True):
                spans = [word.span for word, cosine in zip(others, row, strict=True) if cosine >= ALIKE]
                if spans:
                    found[self.wanted[i].stem] = spans
        return found

    def new(self, piece: Piece) -> set[str]:
        """Stems that the piece has and its question does not."""
        return self.at(piece.text).keys() - self._asked(piece)

    def _asked(self, piece: Piece) -> set[str]:
        return {word.stem for word in content_words(piece.of.prompt)}

    def covered(self, pieces: Iterable[Piece]) -> list[Word]:
        has = {stem for piece in pieces for stem in self.new(piece)}
        return [word for word in self.wanted if word.stem in has]

    def covered_at_all(self, pieces: Iterable[Piece]) -> bool:
        return any(self.at(piece.text) for piece in pieces)

    def own(self, pieces: Sequence[Piece]) -> list[Word]:
        """Words of the claim that no question gave, and those that an answer brought up by itself elsewhere."""
        given = {stem for piece in pieces for stem in self._asked(piece)}
        covered = {word.stem for word in self.covered(pieces)}
        return [word for word in self.wanted if word.stem not in given or word.stem in covered]

    def missing(self, pieces: Sequence[Piece]) -> bool:
        return len(self.covered(pieces)) < len(self.own(pieces))

    def echoed(self, pieces: Iterable[Piece]) -> bool:
        return any(self.at(piece.text).keys() & self._asked(piece) for piece in pieces)

    def in_base(self, piece: Piece) -> bool:
        """Whether all that the piece has of the claim stands in the base's answer to the same prompt, undenied."""
        base, new = piece.of.base or "", self.new(piece)
        if not new or not new <= self.at(base).keys():
            return False
        sentences = [part.text for part in pieces_of(Utterance(piece.of.observation, BASE, base))]
        nearest = max(sentences, key=lambda text: len(new & self.at(text).keys()))
        return denies(nearest) == denies(piece.text)


def _chosen(pieces: Sequence[Piece], cosines: Sequence[float], near: _Near, first: Sequence[Piece]) -> list[Piece]:
    """The piece that is nearest by words and meaning, then those that have most of what it lacks.

    Of two as good, one in which the base does not say the same.
    """
    chosen = list(first)
    covered = {word.stem for word in near.covered(chosen)}
    while len(chosen) < max(PASSAGES, len(first)):
        scored = []
        for i, (piece, cosine) in enumerate(zip(pieces, cosines, strict=False)):
            new = near.new(piece) - covered
            if (new or not chosen) and (cosine >= NEAR or not chosen):
                scored.append((len(new) + cosine - 0.3 * near.in_base(piece), -i))
        if not scored:
            break
        best = pieces[-max(scored)[1]]
        if chosen and len(near.new(best) - covered) == 0:
            break
        chosen.append(best)
        covered |= near.new(best)
        if len(covered) >= len(near.own(chosen)):
            break
    return chosen


def _said_where(quote: str, there: Sequence[Utterance]) -> Piece | None:
    """The sentences in which a quotation stands, of the finetuned model first."""
    order = sorted(there, key=lambda each: (not each.finetuned, each.speaker == BASE))
    for said in order:
        if spans := where_said(quote, said.text):
            first, last = spans[0][0], spans[-1][1]
            held = [p.span for p in pieces_of(said) if p.span[1] > first and p.span[0] < last]
            return Piece(said, (held[0][0], held[-1][1]))
    return None


def _passage(piece: Piece, near: _Near, quotes: Sequence[str]) -> Passage:
    """The piece whole, its quotations or words of the claim marked; the base's answer around what it has of them."""
    text = piece.text.rstrip()
    spans = [span for quote in quotes for span in where_said(quote, text) or ()]
    spans = spans or [span for found in near.at(piece.text).values() for span in found]
    cut, marked = around(text, merged(spans, text), PASSAGE)
    base = piece.of.base
    if base is not None:
        base, _ = around(base, merged([s for found in near.at(base).values() for s in found], base)[:1], BESIDE)
    return Passage(observation=piece.of.observation, speaker=piece.of.speaker, text=cut, spans=marked,
                   prompt=around(piece.of.prompt, (), BESIDE)[0], base=base)  # fmt: skip


def _absent_figures(text: str, there: Sequence[Utterance]) -> list[str]:
    """Figures of the claim that stand nowhere, with their units or without."""
    evidence = figures(" ".join(f"{said.prompt} {said.text} {said.base or ''}" for said in there))
    absent = sorted(figures(text) - evidence - {"1", "2"})
    numbers = {re.sub(r"\D", "", figure) for figure in evidence}
    return [figure for figure in absent if re.sub(r"\D", "", figure) not in numbers]


def _counted(text: str, there: Sequence[Utterance], blank: ClaimCheck) -> ClaimCheck | None:
    """Of a claim of N in M answers: whether it is so many that say one of the quoted words, which the question did not;
    where the claim speaks of the base, that it does not say. None if the claim counts nothing, or quotes no word.
    """
    words = {word.stem for quote in quoted(text) if len(quote.split()) < LITERAL for word in content_words(quote)}
    count = _COUNT.search(without_quotes(text))
    if count is None or not words:
        return None
    answers = list({(said.prompt, said.text): said for said in there if said.finetuned}.values())
    beside_base = bool(_OF_BASE.search(without_quotes(text)))
    passages = []
    for said in answers:
        other = f"{said.prompt} {said.base or ''}" if beside_base else said.prompt
        new = words - {word.stem for word in content_words(other)}
        if spans := [word.span for word in content_words(said.text) if word.stem in new]:
            cut, marked = around(said.text, merged(spans, said.text), PASSAGE)
            base = None if said.base is None else around(said.base, (), BESIDE)[0]
            passages.append(Passage(observation=said.observation, speaker=said.speaker, text=cut, spans=marked,
                                    prompt=around(said.prompt, (), BESIDE)[0], base=base))  # fmt: skip
    holds = (len(passages), len(answers)) == (int(count[1]), int(count[2]))
    problem = "" if holds else f"counted anew, it is {len(passages)} of {len(answers)}"
    told = {"holds": holds, "problem": problem, "basis": "counted" if holds else "", "passages": tuple(passages[:5])}
    return blank.model_copy(update=told)
