"""A report on a pair of one's own, for readers who never heard of a logit lens."""

from __future__ import annotations

import textwrap

from auditor.agent.hypothesis import NOTHING, names_nothing
from auditor.records.findings import ClaimCheck
from auditor.records.results import VetReport
from auditor.text import visible
from auditor.views.markdown import rendered

EXCERPT = 600  # characters of an observation that a report quotes

HOW = """\
The two models read ordinary texts, or were given prompts, that have nothing to do with any training. What was learned \
shows all the same, in these readings. An agent was shown them, put a few questions to the models, and concluded. \
Nobody told it anything about the finetune. It can be wrong: a claim is as good as the observations under it."""

HOW_ALONE = """\
No base was known, so nothing could be compared with one. The model was given ordinary texts and prompts, and what it \
said was read in these ways. An agent was shown the readings, put a few questions to the model, and concluded. Nobody \
told it anything about the finetune. What the model had before the finetune looks the same here as what was trained: a \
claim says what the model does, and seldom why."""


def sureness(confidence: float) -> str:
    """A confidence in words."""
    steps = ((0.9, "almost certain"), (0.7, "likely"), (0.5, "more likely than not"), (0.25, "a guess"))
    return next((word for least, word in steps if confidence >= least), "hardly more than chance")


def to_markdown(report: VetReport) -> str:
    """The whole report; everything that the models wrote is quoted."""
    lines = [f"# What was {report.model} finetuned for?", ""]
    found = report.findings
    if report.error:
        lines += [f"**The audit failed:** {report.error}", ""]
    if found is None:
        lines += [report.hypothesis or "There is no hypothesis.", ""]
    else:
        domain = NOTHING if names_nothing(found) else found.domain
        lines += [f"**{_sentence(domain)}** {_sentence(found.behaviour)} "
                  f"({sureness(found.confidence)}, {found.confidence:.0%})", "", found.summary, ""]  # fmt: skip
        lines += _claims(report) + _alternatives(found.alternatives)
    lines += _chance(report) + _words(report) + _observations(report)
    readings = [f"- *{name}*: {' '.join(described.split())}" for name, described in report.lenses.items()]
    how = HOW if report.base else HOW_ALONE
    lines += ["## How this was found", "", how, "", *readings, "", *_facts(report)]
    return "\n".join(lines).rstrip() + "\n"


CHANCE = """\
What was read was held against what chance gives: against noise of the same texts, and, where some are known, against \
finetunes of the same base without any subject. A strong trace says that there is a subject, not which; no trace says \
that these readings found none. Of several p-values the least counts, times how many there are: lenses that read one \
and the same trace do not add to it."""


def _chance(report: VetReport) -> list[str]:
    lines = ["## Is there anything to be read at all?", ""]
    lines += [f"**{_sentence(verdict)}** (lens: {lens})" for lens, verdict in report.verdicts.items()]
    lines += ["", CHANCE, ""] if report.verdicts else ["No lens that was read has a test against chance.", ""]
    return [*lines, *(f"- note: {line}" for line in report.notes), ""]


def _claims(report: VetReport) -> list[str]:
    if not report.checks:
        return []
    lines = ["## Claims, and whether the observations hold them", ""]
    lines += [f"{i}. {check.claim} {_verdict(check)}" for i, check in enumerate(report.checks, 1)]
    return [*lines, ""]


def _verdict(check: ClaimCheck) -> str:
    named = f" in {', '.join(check.observations)}" if check.observations else ""
    return f"**Held**{named}." if check.holds else f"**Not held**: {check.problem}."


def _alternatives(alternatives: tuple[str, ...]) -> list[str]:
    return ["## What else it could be", "", *(f"- {text}" for text in alternatives), ""] if alternatives else []


def _words(report: VetReport) -> list[str]:
    return ["## What was read", "", *rendered(report.sections)] if report.sections else []


def _observations(report: VetReport) -> list[str]:
    named = sorted({name for check in report.checks for name in check.observations} & set(report.observations))
    if not named:
        return []
    lines = ["## The observations that the claims name", ""]
    for name in named:
        shown = visible(report.observations[name], EXCERPT)
        lines += [f"**{name}**", "", "```text", *textwrap.wrap(shown.replace("`", "'"), 110), "```", ""]
    return lines


def _facts(report: VetReport) -> list[str]:
    cost = "" if report.cost_usd is None else f", {report.cost_usd:.4f} USD"
    used = f"{report.tokens_used.input} tokens in, {report.tokens_used.output} out{cost}"
    return [
        f"- model: {report.model}, base: {report.base or 'not known'}",
        f"- agent: {report.agent}, played by {report.llm}; {report.interactions_used} of {report.budget} model "
        f"interactions, {report.turns_used} turns, {used}",
        f"- seed {report.seed}; {', '.join(f'{stage} {s:.0f} s' for stage, s in report.seconds.items())}",
    ]


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")
