"""The block of a model's card that says how it was audited: what was found, by whom, and what that cannot tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from auditor.audits.vet_advice import CANNOT_TELL, UNTESTED, subject_of, telling, trace_line, traced, verdict
from auditor.llm.spec import OFFLINE
from auditor.readings import Column, RankedTokens, Section
from auditor.records.results import VetReport
from auditor.text import visible
from auditor.views.markdown import escaped

SECTIONS, TOKENS = 4, 8  # shown of what the lenses read
STAND_IN = "the rule-based stand-in, no language model: it counts words and does not understand them"


def block(report: VetReport, about: Mapping[str, Any], dataset: Mapping[str, Any] | None) -> str:
    """Markdown of one heading and a list; whatever a model wrote is escaped, or code, in one line.

    `about`: what the audit was asked for and made with; `dataset`: where it was pushed to, if it was.
    """
    version = _code(str((about.get("versions") or {}).get("auditor", "of old")))
    begun = str(about.get("begun") or "")[:10]
    points = [
        f"**Verdict.** {_plain(verdict(report)[0])}",
        f"**{_plain(trace_line(report))}.** {_tested(report)}",
        f"**Model.** {_named(report, 'finetuned', report.model)}",
        f"**Base.** {_named(report, 'base', report.base) if report.base else 'not known, so nothing was compared'}",
        *([f"**On the pair.** {_plain(report.about)}"] if report.about else []),
        *_read_as(report),
        f"**Who looked.** {_who(report)}",
        *([f"**What is missing.** {_plain('; '.join(report.notes))}"] if report.notes else []),
        f"**What this cannot tell.** {_plain(' '.join(CANNOT_TELL.split()))}",
        *_dataset(dataset),
    ]
    on = f" on {begun}" if begun else ""
    lead = f"Audited with auditor {version} (`pip install auditor-adl`){on} for signs of narrow training."
    return "\n".join(["## Audit", "", lead, "", *(f"- {point}" for point in points)])


def _tested(report: VetReport) -> str:
    if report.trace is None:
        return "There is no p-value. " + " ".join(UNTESTED.split())
    tested = report.trace.tested
    several = f" (the least p of {len(tested)} tests, times {len(tested)})" if len(tested) > 1 else ""
    return f"Tested against chance by {', '.join(map(_code, tested))}{several}."


def _named(report: VetReport, side: str, name: str) -> str:
    told = report.sources.get(side) or ()
    return _code(name) + (f", loaded from {_code(' = '.join(told))}" if told else "; its weights' hash is not known")


def _read_as(report: VetReport) -> list[str]:
    """The best tokens of the sections that say most; of a trace that stands above chance or not."""
    ranked = sorted(
        (s for s in report.sections if isinstance(s, RankedTokens) and s.weight), key=lambda s: -s.weight
    )[:SECTIONS]  # fmt: skip
    told = [(section, _tokens(section)) for section in ranked]
    lines = [f"  - {_plain(section.title)}: {tokens}" for section, tokens in told if tokens]
    weak = {True: "", False: " (no more than chance would show)", None: " (untested)"}[traced(report)]
    return ["\n".join([f"**What the lenses read it as{weak}.**", *lines])] if lines else []


def _tokens(section: Section) -> str:
    assert isinstance(section, RankedTokens)
    columns = [column for column in section.columns if column.tokens and not column.aside]
    if not columns:
        return ""
    best: Column = max(columns, key=lambda column: column.weight)
    chosen = [token for token in best.tokens if token.chosen] or best.tokens
    words: Sequence[str] = list(dict.fromkeys(token.text.strip() for token in chosen if token.text.strip()))
    return ", ".join(map(_code, words[:TOKENS]))


def _who(report: VetReport) -> str:
    who = STAND_IN if report.llm == OFFLINE else f"{_code(report.llm)}, a language model"
    spent = f"agent {_code(report.agent)}, {report.interactions_used} of {report.budget} questions to the model"
    held = f"; {telling(report)} of its {len(report.checks)} claims are borne out by what the base does not say" if (
        report.checks) else ""  # fmt: skip
    none = "; it names no subject" if subject_of(report) == "none" else ""
    return f"{who} ({spent}{held}{none}). Nobody told it anything of the training, and nobody graded it."


def _dataset(dataset: Mapping[str, Any] | None) -> list[str]:
    if dataset is None:
        return []
    private = " (private)" if dataset["private"] else ""
    return [f"**Results and readings.** [{_plain(dataset['repo'])}]({dataset['url']}){private}"]


def _plain(text: str) -> str:
    return escaped(visible(text, 1_500))


def _code(text: str) -> str:
    return f"`{visible(text, 200).replace('`', chr(39))}`"
