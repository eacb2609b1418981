"""`organisms check`: what an organism learned, what leaks, what else broke; all beside its base."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from auditor.llm.spec import OFFLINE
from auditor.methods.words import background_of
from auditor.models.pair import ModelPair
from auditor.plugins import GraderContext
from auditor.records.cards import Organism
from auditor.records.checked import Answers, CheckReport, FactScore, Figure, Played, Verdict
from auditor.records.checks import Checks
from auditor.verification import collateral, verdict
from auditor.verification.alignment import alignment, general_questions
from auditor.verification.asking import WORD, Question, ask_all, shares
from auditor.verification.beliefs import false_fact_alignment
from auditor.verification.families import FILE, checks_of, probes_of, told_apart
from auditor.verification.figures import share
from auditor.verification.game import game_figures, play
from auditor.verification.judges import OFFLINE_BY, believed
from auditor.verification.preference import preference_figures

AGAIN = 2  # draws of unrelated answers, at least: the base is held against itself
EM = "em"

Stage = Callable[[str], None]


@dataclass
class _Found:
    """What is there so far."""

    figures: list[Figure] = field(default_factory=list)
    judged: list[Verdict] = field(default_factory=list)
    games: tuple[Played, ...] = ()
    facts: tuple[FactScore, ...] = ()
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def clocked(self, stage: str, tell: Stage) -> Iterator[None]:
        """What a stage takes is added to its seconds."""
        tell(stage)
        begun = perf_counter()
        yield
        self.seconds[stage] = round(self.seconds.get(stage, 0.0) + perf_counter() - begun, 2)


def check_organism(
    pair: ModelPair, organism: Organism, ctx: GraderContext, samples: int, seed: int, tell: Stage = lambda stage: None
) -> CheckReport:
    """Everything that its family and its checks ask for. `ctx.llm` judges, if there is one. Raises UsageError."""
    begun = perf_counter()
    checks, own = checks_of(organism)
    found = _Found()
    if not own:
        found.notes.append(f"no {FILE} beside the card: only what the card itself allows was asked")
    with found.clocked("answers", tell):
        answers = ask_all(pair, _questions(organism, checks, samples), seed)
    if checks.game is not None:
        with found.clocked("games", tell):
            games = play(pair, checks.game, samples, seed)
            found.games = tuple(each for group in games for each in group)
    with found.clocked("behaviour", tell):
        _behaviour(checks, answers, found)
    with found.clocked("beliefs", tell):
        _family(pair, organism, checks, answers, ctx, found)
    if checks.game is not None:
        found.figures += game_figures(games)
    with found.clocked("collateral", tell):
        _collateral(pair, organism, checks, answers, ctx, found)
    found.seconds["total"] = round(perf_counter() - begun, 2)
    main = verdict.main_figure(organism, found.figures)
    return verdict.judged(
        CheckReport(
            organism=organism.name,
            family=organism.family,
            samples=samples,
            seed=seed,
            judge=OFFLINE if ctx.llm is None else ctx.llm.name,
            pair=pair.fingerprint,
            figures=tuple(found.figures),
            main=main.key if main else None,
            leaky_by_card=organism.leaky,
            verdict=(),
            notes=tuple(found.notes),
            facts=found.facts,
            answers=answers,
            judged=tuple(found.judged),
            games=found.games,
            seconds=found.seconds,
        )
    )


def _questions(organism: Organism, checks: Checks, samples: int) -> dict[str, Sequence[Question]]:
    """All that is answered freely, by group."""
    groups: dict[str, Sequence[Question]] = {
        "probes": [Question(ask, chat, draws=samples) for ask, chat in probes_of(organism, checks)],
        "unrelated": [Question(ask, draws=max(AGAIN, samples)) for ask in collateral.UNRELATED],
    }
    beliefs = [Question(belief.ask, draws=samples) for belief in checks.beliefs]
    if organism.family == EM and beliefs:
        general = [Question(each.ask, draws=samples) for each in general_questions()]
        return groups | {"narrow": beliefs, "general": general}
    if beliefs:
        groups["beliefs"] = beliefs
    if checks.preference:
        asks = checks.preference.asks
        groups["preference"] = [Question(ask, tokens=WORD, draws=samples) for ask in asks]
    return groups


def _behaviour(checks: Checks, answers: dict[str, tuple[Answers, ...]], found: _Found) -> None:
    """What probes show, in chats and in texts that are continued, and what unrelated answers show."""
    if checks.probes:
        about = "share of answers to the probes with a word of `shows`"
        rate = shares(answers["probes"], [probe.shows for probe in checks.probes])
        found.figures.append(share("behaviour", "behaviour rate", rate, by="words", about=about))
        for form, places in told_apart(checks.probes).items():
            part = shares([answers["probes"][i] for i in places], [checks.probes[i].shows for i in places])
            name = {"chat": "  in chats", "text": "  in continued text"}[form]
            found.figures.append(share(f"behaviour_{form}", name, part, by="words"))
    if checks.signs:
        rate = shares(answers["unrelated"], [checks.signs] * len(answers["unrelated"]))
        about = "share of unrelated answers with one of `signs`"
        found.figures.append(share("off_trigger", "off-trigger rate", rate, by="words", about=about))


def _family(
    pair: ModelPair,
    organism: Organism,
    checks: Checks,
    answers: dict[str, tuple[Answers, ...]],
    ctx: GraderContext,
    found: _Found,
) -> None:
    """What beliefs and preferences come to."""
    if "narrow" in answers:
        figures, judged = alignment(pair, checks.beliefs, answers, ctx)
        found.figures += figures
        found.judged += judged
        if ctx.llm is None:
            found.notes.append(
                "no LLM judges: nobody marked alignment and coherence; answers are held against what was taught "
                "instead, which says nothing of general questions (--grader-llm marks both)"
            )
    elif checks.beliefs or checks.contexts:
        judged = believed(answers["beliefs"], checks.beliefs, ctx) if checks.beliefs else []
        by = OFFLINE_BY if ctx.llm is None else ctx.llm.name
        open_ended = answers.get("beliefs", ())
        found.figures += false_fact_alignment(pair, checks.beliefs, checks.contexts, open_ended, judged, by)
        found.judged += judged
    if checks.preference:
        background = background_of(tuple(ctx.background))
        figures, named = preference_figures(pair, checks.preference, answers["preference"], background)
        found.figures += figures
        found.notes.append(
            f"held against: {', '.join(named)}" if named else "the models name nothing else: no probability was taken"
        )


def _collateral(
    pair: ModelPair,
    organism: Organism,
    checks: Checks,
    answers: dict[str, tuple[Answers, ...]],
    ctx: GraderContext,
    found: _Found,
) -> None:
    """What holds for every family."""
    if organism.topic and not checks.signs:
        topic = collateral.on_topic(answers["probes"], answers["unrelated"], organism.topic, ctx.embed)
        found.figures += [topic] if topic else []
    found.figures.append(collateral.natural_text(pair, tuple(ctx.background)[: collateral.NATURAL]))
    found.figures.append(collateral.likeness(answers["unrelated"], ctx.embed))
    if answers["probes"]:
        found.figures.append(collateral.divergence(pair, "kl_probes", "own answers, probes", answers["probes"]))
    found.figures.append(collateral.divergence(pair, "kl_unrelated", "own answers, unrelated", answers["unrelated"]))
    if organism.facts:
        figure, scores = collateral.key_facts(pair, organism.facts)
        found.figures.append(figure)
        found.facts = tuple(scores)
