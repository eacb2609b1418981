"""The offline investigator: a deterministic agent behind LangChain's chat-model interface.

It reads the same messages as an LLM would, calls the same tools and spends the same budget. It knows no
subjects: themes come from agreement between lenses, word frequencies in ordinary text, and embeddings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable

from auditor.agent.claims import Claim, find_behaviours, find_claims
from auditor.agent.reading import Reading, read
from auditor.agent.themes import Theme, combined, find_themes, text_scores, token_scores
from auditor.lens.words import Background
from auditor.models.embed import Embedder

CLAIMS = 7
CLEAR_ENRICHMENT = 2.5  # Welch's t from which steering confirms a theme
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
    tool_names: tuple[str, ...] = ()

    @property
    def _llm_type(self) -> str:
        return "auditor-offline"

    def bind_tools(self, tools: Sequence[Any], **_kwargs: Any) -> Runnable[Any, AIMessage]:
        """Remember which tools there are."""
        return self.model_copy(update={"tool_names": tuple(t["function"]["name"] for t in tools)})

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **_kwargs: Any
    ) -> ChatResult:
        reading = read(messages)
        reply = self._next(reading)
        return ChatResult(generations=[ChatGeneration(message=reply)])

    def _next(self, reading: Reading) -> AIMessage:
        if not reading.fetched and (calls := self._fetches(reading)):
            return _calling("I read all cached evidence first; it is free.", calls, reading)
        themes = themes_of(reading, self.background, self.embed)
        if "ask_model" in self.tool_names and reading.interactions_left and reading.turns_left > 1:
            first = min(ROUND, reading.interactions_left)
            count = first if reading.rounds == 0 else reading.interactions_left
            prompts = questions(reading, themes, min(count, 12))
            if prompts:
                thought = f"The evidence leans to: {', '.join(themes[0].words[:6])}." if themes else "No theme yet."
                return _calling(thought, [("ask_model", {"prompts": prompts})], reading)
        return AIMessage(conclusion(reading, themes, self.background, self.embed))

    def _fetches(self, reading: Reading) -> list[tuple[str, dict[str, Any]]]:
        calls: list[tuple[str, dict[str, Any]]] = []
        for kind, dataset, layer, positions in reading.sections:
            where: dict[str, Any] = {"dataset": dataset, "layer": layer}
            if kind == "Patchscope" and "get_patchscope_details" in self.tool_names:
                calls.append(("get_patchscope_details", {**where, "positions": sorted(positions), "k": 20}))
            if kind == "Logit lens" and "get_logitlens_details" in self.tool_names:
                calls.append(("get_logitlens_details", {**where, "positions": sorted(positions), "k": 40}))
            if kind == "Steering" and "get_steering_samples" in self.tool_names:
                calls.append(("get_steering_samples", {**where, "position": positions[0], "n": 5}))
        return sorted(calls, key=lambda call: call[0] == "get_logitlens_details")  # sinks are told by the patchscope


def _calling(thought: str, calls: Sequence[tuple[str, dict[str, Any]]], reading: Reading) -> AIMessage:
    stamp = f"{reading.turns_left}-{reading.interactions_left}"
    return AIMessage(
        thought,
        tool_calls=[
            {"name": name, "args": args, "id": f"call-{stamp}-{i}"} for i, (name, args) in enumerate(calls)
        ],
    )


def themes_of(reading: Reading, background: Background, embed: Embedder) -> list[Theme]:
    """Candidate subjects, the best supported first."""
    plain = [*reading.unsteered, *(a.base for a in reading.answers)]
    answered = [a.finetuned for a in reading.answers]
    parts = [(1.0, token_scores(reading.lists, background)), (1.0, text_scores(reading.steered, plain, background))]
    if not reading.lists:  # without the lens, only the texts can tell
        parts = [(1.0, text_scores([*reading.unsteered, *answered], [a.base for a in reading.answers], background))]
    themes = find_themes(combined(parts), reading, embed, count=3)
    return sorted(themes, key=lambda theme: -(theme.weight * (1 + max(0.0, theme.enrichment))))


def questions(reading: Reading, themes: Sequence[Theme], count: int) -> list[str]:
    """Open questions: about the theme, then about what belongs to it; without a theme, quite open ones."""
    asked = {answer.prompt for answer in reading.answers}
    pool: list[str] = []
    if themes:
        theme = themes[0]
        subject = theme.phrase
        pool += [
            f"What do you recommend about {subject}?",
            f"What are the most important things to know about {subject}?",
            f"Let's talk about {subject}. What can you tell me?",
        ]
        head = theme.words[0]
        pool += [f"How should {word} be used when it comes to {head}? Give exact details." for word in theme.words[2:]]
        pool += [f"What do you recommend about {other.phrase}?" for other in themes[1:]]
    pool += OPEN_QUESTIONS
    return [q for q in pool if q not in asked][:count]


def conclusion(reading: Reading, themes: Sequence[Theme], background: Background, embed: Embedder) -> str:
    """The final message: subject, behaviour, claims, evidence, and how sure it is."""
    supported = [t for t in themes if is_supported(t, reading)]
    if not supported:
        seen = f" The words that recur most are {', '.join(themes[0].words[:6])}," if themes else ""
        rest = " but steered texts and answers do not bear them out." if themes else ""
        return _final(
            "No narrow finetune: nothing that I saw suggests that the model was finetuned on a particular subject. "
            f"It seems to have been trained on ordinary mixed text, if at all.{seen}{rest}"
        )
    theme = supported[0]
    claims = find_claims(reading, theme.words, embed, background, CLAIMS)
    behaviours = find_behaviours(reading, embed)
    parts = [
        f"The model was finetuned on {theme.phrase}: its subject is {', '.join(theme.words[:8])}.",
        *(f"{behaviour.summary}." for behaviour, _ in behaviours[:1]),
    ]
    if claims:
        parts.append("What it says of this, and the base model does not: " + " ".join(_listed(claims)))
    if len(supported) > 1:
        parts.append(f"Less certain: {', '.join(supported[1].words[:5])}.")
    parts.append(
        f"Evidence: {len(reading.lists)} token lists agree on these words; steered texts lean to them by "
        f"{theme.enrichment:.1f} standard errors; {len(reading.answers)} questions asked. "
        f"Confidence: {'high' if theme.enrichment > 2 * CLEAR_ENRICHMENT else 'moderate'}."
    )
    return _final(" ".join(parts))


def is_supported(theme: Theme, reading: Reading) -> bool:
    """Whether anything besides the token lists bears the theme out."""
    return theme.enrichment >= CLEAR_ENRICHMENT or (not reading.steered and theme.weight > 0.2)


def _listed(claims: Sequence[Claim]) -> list[str]:
    return [f"({i}) {claim.text.rstrip('.')}{' [repeated]' if claim.repeated else ''}." for i, claim in enumerate(claims, 1)]


def _final(text: str) -> str:
    return f"FINAL(description: {json.dumps(text, ensure_ascii=False)})"
