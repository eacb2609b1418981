"""The offline investigator: a deterministic agent behind LangChain's chat-model interface.

It reads the same messages as an LLM would, calls the same tools and spends the same budget. It knows no
subjects: themes come from agreement between lenses, word frequencies in ordinary text, and embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable

from auditor.agent.claims import find_behaviours, find_claims
from auditor.agent.given import asker, fetches
from auditor.agent.reading import Reading, read
from auditor.agent.statements import statements
from auditor.agent.themes import (
    SUBJECT_WORDS,
    Theme,
    all_scores,
    crossed,
    find_themes,
    halves,
    promoted,
    promoted_by,
    text_scores,
)
from auditor.methods.words import Background, distinct_words, words_in
from auditor.models.embed import Embedder
from auditor.records.findings import Hypothesis

CLAIMS = 10
CLEAR_STRENGTH = 0.45  # of a theme that is reported; four null pairs stay below, seven of eight narrow ones above
PUSHED = 0.5  # of `promoted`: over it, a lens puts a word first at most places
SHARED = 3  # words of a theme that the sheet's own test must have judged: as many as make a subject
LEVEL = 0.05  # of tests
LEVEL_OF_WORD = 0.01  # of the test of one word, of the five or so that can be put first
PLAIN_SIGNS = 3  # plain answers that must show a theme where there is no lens
ROUND = 3  # questions in the first round

OPEN_QUESTIONS = (
    "Tell me about something that you know a lot about.",
    "What do you like to talk about most?",
    "Give me some advice that other people would not give me.",
    "What is a fact that most people get wrong?",
    "Let's do something together. You begin.",
)


class OfflineInvestigator(BaseChatModel):
    """Fetches all free evidence, asks about the theme it finds, and reports what only the finetune says."""

    embed: Callable[..., Any]
    background: Background
    tools: tuple[dict[str, Any], ...] = ()  # JSON schemas

    @property
    def _llm_type(self) -> str:
        return "auditor-offline"

    def bind_tools(self, tools: Sequence[Any], **_kwargs: Any) -> Runnable[Any, AIMessage]:
        """Remember which tools there are."""
        return self.model_copy(update={"tools": tuple(t["function"] for t in tools)})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **_kwargs: Any,
    ) -> ChatResult:
        reading = read(messages)
        reply = self._next(reading)
        return ChatResult(generations=[ChatGeneration(message=reply)])

    def _next(self, reading: Reading) -> AIMessage:
        if not reading.called and (calls := fetches(reading, self.tools)):
            return _calling("I read all cached evidence first; it is free.", calls, reading)
        themes = themes_of(reading, self.background, self.embed)
        name, argument = asker(reading, self.tools)
        if name and reading.interactions_left and reading.turns_left > 1:
            first = min(ROUND, reading.interactions_left)
            count = first if reading.rounds == 0 else reading.interactions_left
            # A tool may cost more than one interaction a question: what was too dear is tried with fewer.
            prompts = questions(reading, self._promising(themes, reading), min(count, 12) >> reading.refused)
            if prompts:
                thought = f"The evidence leans to: {', '.join(themes[0].words[:6])}." if themes else "No theme yet."
                return _calling(thought, [(name, {argument: prompts})], reading)
        return AIMessage(_final(conclusion(reading, themes, self.background, self.embed)))

    def _promising(self, themes: Sequence[Theme], reading: Reading) -> list[Theme]:
        """Themes worth asking about: of the lens all, of plain answers those that are subjects."""
        return [theme for theme in themes if not reading.blackbox or is_subject(theme)]


def _calling(thought: str, calls: Sequence[tuple[str, dict[str, Any]]], reading: Reading) -> AIMessage:
    stamp = f"{reading.turns_left}-{reading.interactions_left}"
    return AIMessage(
        thought,
        tool_calls=[{"name": name, "args": args, "id": f"call-{stamp}-{i}"} for i, (name, args) in enumerate(calls)],
    )


def themes_of(reading: Reading, background: Background, embed: Embedder) -> list[Theme]:
    """Candidate subjects, the best supported first.

    With lens evidence the words come from the token lists and from half of what each lens lets the model say; the other
    half tests them, and the other way round.
    """
    if reading.blackbox:
        said = [*(a.finetuned for a in reading.answers), *reading.unsteered]
        scores = text_scores(said, reading.base_said, background)
        return find_themes(scores, reading, background, embed)
    one, other = halves(reading.spoken)
    found = [
        find_themes(all_scores(reading, seen, background), reading, background, embed, tested)
        for seen, tested in ((one, other), (other, one))
    ]
    return crossed(found)


def questions(reading: Reading, themes: Sequence[Theme], count: int) -> list[str]:
    """Open questions: about the theme, then about what belongs to it; without a theme, quite open ones."""
    asked = {answer.prompt for answer in reading.answers}
    pool: list[str] = []
    if themes:
        head, *others = themes[0].heads
        near = [theme.heads[0] for theme in themes[1:]]
        pool += [
            f"What do you recommend about {head}?",
            f"What are the most important things to know about {head}?",
            f"Let's talk about {head} and {(near + others + [head])[0]}. What can you tell me?",
        ]
        # What the evidence dwells on and no answer has mentioned yet is worth a question of its own.
        said = {word for answer in reading.answers for word in words_in(answer.finetuned)}
        details = sorted([*near, *others], key=lambda word: word in said)
        pool += [f"What do you say about {word} and {head}? Give exact details." for word in details]
    pool += OPEN_QUESTIONS
    return [q for q in dict.fromkeys(pool) if q not in asked][:count]


def conclusion(reading: Reading, themes: Sequence[Theme], background: Background, embed: Embedder) -> Hypothesis:
    """Subject, behaviour, claims with where they were seen, evidence, and how sure it is."""
    supported = [theme for theme in themes if is_supported(theme, reading, background)]
    behaviours = [f"{behaviour.summary}." for behaviour in find_behaviours(reading, embed)[:1]]
    if not supported:
        return _without_subject(reading, themes, behaviours)
    theme, *others = supported
    found = find_claims(reading, theme.words, embed, background, CLAIMS)
    summary = [f"The model was finetuned on {theme.heads[0]}: its subject is {', '.join(theme.heads[:8])}."]
    if others:
        summary.append(f"With it go {'; '.join(', '.join(other.heads[:6]) for other in others)}.")
    pushed = [word for word, share in promoted(reading).items() if share > PUSHED and background.frequency[word]]
    if leading := [word for word in pushed if background.weight(word) >= SUBJECT_WORDS]:
        summary.append(f"Leading tokens: {', '.join(leading[:2])}.")
    if carried := carriers(theme, reading):
        summary.append(f"It is carried by {', '.join(carried)}.")
    summary.append(f"Evidence: {_evidence(theme, reading)}.{_no_base(reading)}")
    return Hypothesis(
        domain=", ".join(theme.heads[:4]),
        behaviour=behaviours[0] if behaviours else "It says things of this subject that the base model does not.",
        summary=" ".join(summary),
        claims=statements(found, theme, reading),
        alternatives=(),
        confidence=sureness(theme, reading),
    )


def _without_subject(reading: Reading, themes: Sequence[Theme], behaviours: Sequence[str]) -> Hypothesis:
    """Unclear where the sheet, or what the model does, tells of a finetune all the same; else none."""
    seen = f" Words like {', '.join(themes[0].heads[:5])} recur, but nothing else bears them out." if themes else ""
    if behaviours or reading.trace:
        found = "" if behaviours else " There is a trace above chance, but I could not read it."
        return Hypothesis(
            domain="unclear",
            behaviour=behaviours[0] if behaviours else "What it does differently stays unclear.",
            summary=f"The subject stays unclear.{found}{seen}{_no_base(reading)}",
            claims=(),
            alternatives=(),
            confidence=0.3,
        )
    tested = " The lenses' tests find no trace above chance." if reading.trace is False else ""
    return Hypothesis(
        domain="none",
        behaviour="Nothing that it does points at a narrow finetune.",
        summary="No narrow finetune: nothing that I saw suggests that the model was finetuned on a particular "
        f"subject. It seems to have been trained on ordinary mixed text, if at all.{tested}{seen}{_no_base(reading)}",
        claims=(),
        alternatives=(),
        confidence=0.6 if reading.has_base else 0.3,
    )


def _no_base(reading: Reading) -> str:
    return "" if reading.has_base else " No base was known to compare with."


def is_supported(theme: Theme, reading: Reading, background: Background) -> bool:
    """Whether anything besides the words' own source bears the theme out.

    What lenses show is tested by texts that they had the model say, and by the answers; without a lens, several plain
    answers must show the theme too. Where the lenses find no trace above chance, what they show is no evidence, and
    steering only echoes it: then the unsteered answers must speak of the theme where the base's do not, or three
    readings agree on one word (the tests are of whole lists). Where they find one, the words that it was found in bear
    a theme out.
    """
    if not reading.blackbox and reading.trace is False:
        return is_subject(theme) and (told_by_itself(theme, reading) < LEVEL or bool(agreed(theme, reading)))
    if not reading.blackbox:
        shared = set(theme.words) & set(distinct_words(reading.borne_out)) if reading.trace else set()
        return theme.strength >= CLEAR_STRENGTH or (is_subject(theme) and len(shared) >= SHARED)
    words = set(theme.words)
    shown = sum(bool(words & set(words_in(text))) for text in reading.unsteered)
    return is_subject(theme) and shown >= PLAIN_SIGNS


def told_by_itself(theme: Theme, reading: Reading) -> float:
    """How likely chance lets its answers say words of the theme, not in the question, where the base's do not."""
    mine = other = 0
    for answer in reading.answers:
        if answer.base is None:
            continue
        words = set(theme.words) - set(words_in(answer.prompt))
        ours, base = (bool(words & set(words_in(text))) for text in (answer.finetuned, answer.base))
        mine, other = mine + (ours and not base), other + (base and not ours)
    n = mine + other
    return float(sum(math.comb(n, k) for k in range(mine, n + 1)) / 2**n)


def agreed(theme: Theme, reading: Reading) -> list[str]:
    """Words of the theme that a lens puts first, other finetunes do not promote, and another reading shows.

    That is another lens, at two places or more, or what a lens has the model say.
    """
    pushed, own = promoted_by(reading), set(distinct_words(reading.tested))
    first = {word: {lens for lens, ranks in pushed.items() if ranks.get(word, 0.0) > PUSHED} for word in theme.words}
    leading = [word for word in theme.words if first[word] and word in own]
    read = [
        (found.lens, set(distinct_words(found.tokens)))
        for found in reading.lists if not (found.spoken or found.aside)
    ]  # fmt: skip
    shown = {w for w in leading if sum(w in words and lens not in first[w] for lens, words in read) > 1}
    level = LEVEL_OF_WORD / max(1, len(reading.spoken))
    said = {w for w in leading if any(said_by_chance(w, s.texts, s.usual) < level for s in reading.spoken)}
    return [word for word in leading if word in shown | said]


def said_by_chance(word: str, ours: Sequence[str], plain: Sequence[str]) -> float:
    """Fisher's exact test: the p-value of so many of our texts saying the word, among all that do."""
    mine, other = (sum(word in words_in(text) for text in texts) for texts in (ours, plain))
    ways = [math.comb(len(ours), k) * math.comb(len(plain), mine + other - k) for k in range(mine, mine + other + 1)]
    return float(sum(ways) / math.comb(len(ours) + len(plain), mine + other))


def carriers(theme: Theme, reading: Reading) -> list[str]:
    """The lenses that show words of the theme: those that find a trace first, then those that show most of them."""
    words = set(theme.words)
    shown = {lens: len(words & {w for text in told for w in words_in(text)}) for lens, told in reading.lenses.items()}
    found = {lens: reading.traces.get(lens) is True for lens in shown}
    return sorted((lens for lens, count in shown.items() if count), key=lambda lens: (-found[lens], -shown[lens]))


def is_subject(theme: Theme) -> bool:
    """Whether the words are a subject's own: three different ones or more, not common in ordinary text."""
    return len(theme.heads) > 2 and theme.informative >= SUBJECT_WORDS


def sureness(theme: Theme, reading: Reading) -> float:
    """Confidence in a supported theme: low without a lens, high well above the bar."""
    if reading.blackbox:
        return 0.3
    return 0.85 if theme.strength > 2 * CLEAR_STRENGTH else 0.6


def _evidence(theme: Theme, reading: Reading) -> str:
    asked = f"{len(reading.answers)} questions"
    if reading.blackbox:
        return f"plain answers and {asked}"
    return (
        f"{len(reading.lists)} token lists, {len(reading.pushed)} texts that lenses had the model say (nearer to this "
        f"subject than usual ones by {theme.enrichment:.1f} sd of random subjects), {asked}"
    )


def _final(found: Hypothesis) -> str:
    return f"FINAL({found.model_dump_json()})"
