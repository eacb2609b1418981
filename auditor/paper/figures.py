"""The paper's figures by number: what each is drawn from, and how."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from auditor.errors import UsageError
from auditor.paper.graded import RUN, at_positions, beside, both_ways, deviations, grades, no_domain
from auditor.paper.measured import (
    CAUSAL,
    POSITIONS,
    RELEVANCE,
    SIMILARITY,
    along_positions,
    causes,
    relevant,
    relevant_by_position,
    similar,
    similar_by_position,
)
from auditor.paper.published import FIGURE_3, FIGURE_16, Printed, Row
from auditor.paper.sources import Kind, Sources
from auditor.paper.varied import documents, either, marked, ratio, varied
from auditor.records.public import DEFAULT
from auditor.studies.records import Panel

LEFT_OUT = ("ignore_comment",)  # of figure 2a: the paper's footnote 4
BASE_CHAT = "auditor evaluate paper-base-chat --llm … --grader-llm …, beside a run of `paper`"
DOMAIN = "auditor evaluate paper-domain --llm … --grader-llm …"
WEAK = "auditor evaluate paper-weak-agent --llm … --grader-llm …"
MIXING = "auditor study mixing cake_bake fda_approval kansas_abortion"
MIXING_EM = "auditor study mixing bad_medical risky_finance extreme_sports --ratios 0,1 --grader-llm …"
FULL = "auditor study full-vs-lora cake_bake fda_approval kansas_abortion"
SAMPLES = "auditor study samples cake_bake kansas_abortion"
SINGLY = "auditor evaluate paper --agent adl --set differences.positions=128 --set differences.only=[N], for each N"
CAFT = "auditor study caft cake_bake fda_approval kansas_abortion"


LEARNED_AND_READ = ("What was learned", "What can be read")


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the paper's. `commands`: what makes its sources; `note`: what differs from the paper's."""

    number: int
    title: str
    commands: tuple[str, ...]
    panels: Callable[[Sources], Sequence[Panel]]
    printed: tuple[Printed, ...] = ()
    note: str = ""

    def drawn(self, sources: Sources) -> tuple[tuple[Panel, ...], tuple[Row, ...]]:
        """Its panels, and the paper's values beside ours. Raises UsageError with what is missing."""
        try:
            panels = tuple(panel for panel in self.panels(sources) if panel.series)
            rows = tuple(beside(sources, self.commands[0], self.printed)) if self.printed else ()
        except UsageError as error:
            raise UsageError(f"figure {self.number}: {error}") from error
        if not panels:
            raise UsageError(f"figure {self.number}: there is nothing of it in these; {' · '.join(self.commands)}")
        return panels, rows


def _model(kind: Kind) -> str:
    return f"{kind.model}, base → finetune" if kind.base_to_chat else f"{kind.model}, chat → finetune"


def _whole(kind: Kind) -> str:
    return f"{kind.subject} {kind.model}"


def _sdf(kind: Kind) -> bool:
    return kind.family == "sdf" and kind.variant == DEFAULT


USUAL = frozenset({2, 3, 5, 6, 13, 16, 17, 19, 20})  # variants, and those from a pretrained model, are no part of them

FIGURES = {
    figure.number: figure
    for figure in (
        Figure(2, "Relevant tokens and steering, by family and model", (RELEVANCE, SIMILARITY),
               lambda s: [relevant(s, left_out=LEFT_OUT, keep=no_domain), similar(s, keep=no_domain)],
               note="ignore_comment is left out of the tokens, subliminal of steering, as in the paper"),
        Figure(3, "Grades of agents with and without the lens", (RUN,), lambda s: grades(s, RUN), FIGURE_3),
        Figure(4, "Grades from the pretrained model, and from the chat model", (BASE_CHAT,),
               lambda s: both_ways(s, BASE_CHAT)),
        Figure(5, "Along positions", (POSITIONS, SINGLY), lambda s: [*along_positions(s), *at_positions(s)],
               note="5c is of the runs whose agents saw one position alone"),
        Figure(6, "Causal effect of δ", (CAUSAL,), causes,
               note="the paper's text says five organisms, its caption three; ours are those of the studies"),
        Figure(7, "Unrelated documents mixed in", (MIXING,),
               lambda s: varied(s, "mixing", MIXING, LEARNED_AND_READ, ratio, "unrelated documents for each"),
               note="the paper's text says three organisms, its caption five; ours are those of the studies"),
        Figure(8, "All weights, or an adapter", (FULL,),
               lambda s: varied(s, "full-vs-lora", FULL, ("What can be",), either("full", "LoRA"))),
        Figure(9, "Fewer documents", (SAMPLES,),
               lambda s: varied(s, "samples", SAMPLES, LEARNED_AND_READ, documents, "thousands of documents")),
        Figure(10, "CAFT", (CAFT,),
               lambda s: varied(s, "caft", CAFT, ("What can be read", "Agents"), either("CAFT", "plain"))),
        Figure(11, "Emergent misalignment, mixed", (MIXING_EM,),
               lambda s: varied(s, "mixing", MIXING_EM, ("Relevant tokens", "Similarity", "Agents"), ratio,
                                 "unrelated chats for each", em=True)),
        Figure(12, "Misalignment, mixed", (MIXING_EM,),
               lambda s: marked(s, MIXING_EM),
               note="marks need an LLM that judges (--grader-llm)"),
        Figure(13, "Domain organisms beside the others", (RELEVANCE, SIMILARITY), lambda s: [relevant(s), similar(s)]),
        Figure(14, "Grades of domain organisms", (DOMAIN,),
               lambda s: grades(s, DOMAIN, keep=lambda kind: kind.family == "domain")),
        Figure(15, "Spread over runs", (RUN,), lambda s: deviations(s, RUN)),
        Figure(16, "The weaker agent", (WEAK,), lambda s: grades(s, WEAK), FIGURE_16),
        Figure(17, "Relevant tokens by the logit lens", (RELEVANCE,),
               lambda s: [relevant(s, "logit lens", keep=no_domain)]),
        Figure(18, "Relevant tokens, organism by organism", (RELEVANCE,),
               lambda s: [relevant(s, under=_whole, keep=lambda kind: _sdf(kind) and not kind.base_to_chat)]),
        Figure(19, "Relevant tokens, position by position", (RELEVANCE,), relevant_by_position),
        Figure(20, "Steering, position by position", (SIMILARITY,), similar_by_position),
        Figure(21, "From the pretrained model, and from the chat model", (RELEVANCE, SIMILARITY),
               lambda s: [relevant(s, under=_model, keep=_sdf), similar(s, under=_model, keep=_sdf)],
               note="give the studies of organisms such as cake_bake@qwen3_1_7B and cake_bake@qwen3_1_7B_Base"),
    )
}  # fmt: skip
