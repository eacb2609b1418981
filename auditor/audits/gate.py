"""The gate: is what a model was finetuned on readable? Every lens that has a test, held against its null."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from auditor.comparison.statistics import holm
from auditor.errors import AuditorError, UsageError
from auditor.evidence.compute import evidence_for
from auditor.evidence.mapping import Evidence
from auditor.evidence.recipe import Recipe, closure
from auditor.lenses import Lens
from auditor.methods.words import distinct_words, words_in
from auditor.models.pair import ModelPair
from auditor.readings import LEVEL, Figures, RankedTokens, Reading, Section, SideBySide, Token
from auditor.records.gate import Carrier, GateReport, LensVerdict, State
from auditor.text import visible

FALLBACK = ("chance", "logit_lens")  # read of every base: the test that needs no null, and where its words stand
WORDS, TEXTS, PLACES = 12, 3, 3  # that are kept of each lens
TOKEN, TEXT = 40, 240  # characters

NO_NULL = "no finetunes without a subject are known for this base (`auditor study null` reads them)"
OTHER_NULL = "the finetunes without a subject that are known for this base were read with other settings or texts"
NO_TEST = "it has no test against chance"
SHORT = "its test said nothing: there are too few texts, or too few finetunes without a subject"


@dataclass(frozen=True, slots=True)
class Ask:
    """What is to be gated at what level, and how it is called; `lenses`: none for all that have a null."""

    model: str
    weights: str
    base: str
    suite: str
    level: float = LEVEL
    lenses: tuple[str, ...] = ()
    strict: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.level < 1:  # NaN is not, either
            raise UsageError(f"the level is {self.level:g}; give a number between 0 and 1, such as {LEVEL}")


def gated(
    ask: Ask, pair: ModelPair, recipe: Recipe, tell: Callable[[str], None] = lambda stage: None
) -> tuple[GateReport, Evidence]:
    """Read the pair and judge what was read. Raises what ends everything, UsageError for lenses that are not there."""
    missing = _unheld(recipe)
    names = tuple(dict.fromkeys(recipe.lenses[name].name for name in ask.lenses)) or _by_default(recipe, missing)
    evidence = evidence_for(pair, recipe, names, tell)
    return judged(ask, evidence, names, missing), evidence


def has_test(lens: Lens) -> bool:
    """Whether what it reads can be held against finetunes without a subject."""
    return lens.reading.held_against is not Reading.held_against


def _by_default(recipe: Recipe, missing: Iterable[str]) -> tuple[str, ...]:
    held = [name for name, lens in recipe.lenses.items() if has_test(lens) and name not in missing]
    return tuple(dict.fromkeys((*FALLBACK, *held)))


def lenses_read(recipe: Recipe, ask: Ask) -> tuple[str, ...]:
    """All that the gate reads of a pair, needs first. Raises UsageError for lenses that are not there."""
    names = [recipe.lenses[name].name for name in ask.lenses] or _by_default(recipe, _unheld(recipe))
    return tuple(lens.name for lens in closure(recipe.lenses, names)[0])


def _unheld(recipe: Recipe) -> dict[str, str]:
    """Lenses whose test has nothing to hold the pair against, and why."""
    found = {}
    for name, lens in recipe.lenses.items():
        try:
            if has_test(lens) and not recipe.nulls_of(lens):
                found[name] = OTHER_NULL if any(nulls.lens == name for _, nulls in recipe.nulls) else NO_NULL
        except AuditorError as error:  # its settings do not fit
            found[name] = str(error)
    return found


def judged(ask: Ask, evidence: Evidence, names: Sequence[str], missing: dict[str, str]) -> GateReport:
    """What was read, held against `ask.level`. `names`: what was to be read; `missing`: tests without a null, and why.

    A lens whose test exists, but which was not read for want of a null, is told as untested if nobody named lenses.
    """
    ps = {name: p for name in names if name in evidence and (p := evidence[name].p) is not None}
    corrected = dict(zip(ps, holm(list(ps.values())), strict=True))
    failed = [name for name in evidence.failed if name in names or name in {n for each in names for n in
              evidence.needs(each)}]  # fmt: skip
    read = [_verdict(ask, evidence, name, ps, corrected, missing) for name in names if name in evidence]
    lost = [LensVerdict(lens=name, state="failed", why=evidence.failed[name]) for name in failed]
    left = [] if ask.lenses else [name for name in missing if name not in names]
    unread = [LensVerdict(lens=name, state="untested", why=f"not read: {missing[name]}") for name in left]
    return GateReport(
        model=ask.model, weights=ask.weights, base=ask.base, sources=dict(evidence.sources), suite=ask.suite,
        corpus=evidence.corpus, level=ask.level, strict=ask.strict, lenses=(*read, *lost, *unread),
        notes=tuple(evidence.notes),
    )  # fmt: skip


def _verdict(
    ask: Ask, evidence: Evidence, name: str, ps: dict[str, float], corrected: dict[str, float], missing: dict[str, str]
) -> LensVerdict:
    reading, cost = evidence[name], evidence.costs.get(name)
    seconds = 0.0 if cost is None else cost.seconds
    if name not in ps:
        if others := [other for other in ps if evidence.needs(other) and evidence.needs(other) <= evidence.needs(name)]:
            return LensVerdict(lens=name, state="covered", why=f"tested by {', '.join(others)}", seconds=seconds)
        why = missing.get(name) or (SHORT if has_test(evidence.lenses[name]) else NO_TEST)
        return LensVerdict(lens=name, state="untested", why=why, seconds=seconds)
    basis = reading.basis
    least = basis.least if basis else 0.0
    state: State = "readable" if corrected[name] < ask.level else "quiet"
    why = ""
    if basis and not basis.finetunes:
        why = f"against noise only: {missing.get(name, 'fewer than five finetunes without a subject are left')}"
    if state == "quiet" and least * len(ps) >= ask.level:
        state = "untested"
        why = f"its test gives no p below {least:g}, which as one of {len(ps)} is never below {ask.level:g}"
    sections = list(reading.show())
    return LensVerdict(
        lens=name, state=state, p=ps[name], corrected=corrected[name], finetunes=basis.finetunes if basis else None,
        least=least, why=why, rests_on=_rests_on(sections), seconds=seconds,
        carriers=(*_tested(sections), *(_places(evidence, name, sections) if state == "readable" else ())),
    )  # fmt: skip


def _rests_on(sections: Sequence[Section]) -> tuple[str, ...]:
    """The lines of the test."""
    lines = [line for section in sections if isinstance(section, Figures) for line in section.lines]
    return tuple(lines or [s.about for s in sections if isinstance(s, RankedTokens) and s.tested and s.about])


def _tested(sections: Sequence[Section]) -> tuple[Carrier, ...]:
    """The words that the test judged, place by place, with texts that say some of them."""
    found = [(s, column) for s in sections if isinstance(s, RankedTokens) and s.tested for column in s.columns]
    return tuple(
        Carrier(
            title=section.title, where=f"{section.places} {column.head}", words=words,
            texts=_texts(sections, column.head, words),
        )
        for section, column in found[:PLACES]
        if (words := tuple(_words(column.tokens)))
    )  # fmt: skip


def _words(tokens: Iterable[Token]) -> list[str]:
    return [visible(text, TOKEN) for token in tokens if (text := token.text.strip())][:WORDS]


def _texts(sections: Sequence[Section], place: str, words: Sequence[str]) -> tuple[str, ...]:
    """Texts in which what was trained is made stronger, from this place, that say most of the words."""
    wanted, said = {word.lower() for word in words}, dict[str, int]()
    for section in sections:
        if isinstance(section, SideBySide) and section.title.endswith(place):
            pushed = [i for i, column in enumerate(section.columns) if column.role == "pushed"]
            for text in (text for row in section.rows for i in pushed for text in row.texts[i]):
                said[text] = len(wanted & set(words_in(text)))
    best = sorted((text for text, count in said.items() if count), key=lambda text: -said[text])
    return tuple(visible(" ".join(text.split()), TEXT) for text in best[:TEXTS])


def _places(evidence: Evidence, name: str, sections: Sequence[Section]) -> list[Carrier]:
    """Where lenses that this test speaks for read its words: of each section the place that has most of them."""
    tested = {word for s in sections if isinstance(s, RankedTokens) and s.tested for column in s.columns
              for word in distinct_words(token.text for token in column.tokens)}  # fmt: skip
    own = evidence.needs(name)
    found = []
    for other, reading in evidence.items():
        if other == name or not own or not own <= evidence.needs(other) or reading.p is not None:
            continue
        for section in (s for s in reading.show() if isinstance(s, RankedTokens)):
            counts = [[w for w in distinct_words(t.text for t in column.tokens) if w in tested]
                      for column in section.columns]  # fmt: skip
            best = max(range(len(counts)), key=lambda i: len(counts[i]), default=0)
            if counts and counts[best]:
                where = f"{section.places} {section.columns[best].head}"
                found.append(Carrier(title=section.title, where=where, words=tuple(counts[best][:WORDS])))
    return found
