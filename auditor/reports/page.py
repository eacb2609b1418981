"""The pages: templates, style and script in one; nothing is loaded, and no text that was audited can run."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment

from auditor import __version__
from auditor.audits.runs import checks_of
from auditor.comparison.drawing import NARROW, WIDE
from auditor.comparison.figures import charts, svg
from auditor.comparison.headline import signed, turned
from auditor.records.comparison import Comparison, Difference, Standing
from auditor.records.findings import Passage
from auditor.records.results import AuditRecord
from auditor.reports.text import Part, spanned
from auditor.reports.transcript import message_of
from auditor.text import readable, visible
from auditor.views.page import PAGES, environment

LINE = 400  # characters of what stands in one line
SHARED = 500  # characters from which a message to the agent is kept once for all audits
SAYS = 180  # characters of a hypothesis in the table of audits


@cache
def templates() -> Environment:
    """The pages' environment, with what these need; control characters are shown wherever a text is put in."""
    env = environment()
    env.finalize = lambda value: readable(value) if type(value) is str else value
    env.filters |= {
        "visible": lambda text: visible(str(text), LINE), "readable": readable, "number": _number, "share": _share,
        "signed": signed, "p": _p, "spanned": _spanned,
    }  # fmt: skip
    env.globals |= {"version": __version__}
    return env


def script() -> tuple[str, str]:
    """The pages' script, and its digest for their Content-Security-Policy."""
    text = (PAGES / "report.js").read_text("utf-8")
    return text, base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def drawn(comparison: Comparison) -> dict[str, list[tuple[str, str, str]]]:
    """By grader: title, wide and narrow SVG of each chart."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    for i, grader in enumerate(comparison.graders):
        found[grader] = [
            (title, svg(draw, comparison, grader, WIDE, f"w{i}{j}"), svg(draw, comparison, grader, NARROW, f"n{i}{j}"))
            for j, (title, draw) in enumerate(charts(comparison, grader).items())
        ]
    return found


def ranked(comparison: Comparison) -> dict[str, list[Standing]]:
    """By grader, best first."""
    return {
        grader: sorted((s for s in comparison.standings if s.grader == grader), key=lambda s: -(s.mean or 0.0))
        for grader in comparison.graders
    }


def paired(comparison: Comparison) -> dict[str, list[Difference]]:
    """By grader, each from its better side: those of the best contender first, then the largest."""
    best = {grader: of[0].contender for grader, of in ranked(comparison).items() if of}
    found: dict[str, list[Difference]] = {grader: [] for grader in comparison.graders}
    for each in comparison.differences:
        found[each.grader].append(each if each.mean >= 0 else turned(each))
    for grader, of in found.items():
        of.sort(key=lambda each: (each.first != best[grader], -each.mean if each.first != best[grader] else each.mean))
    return found


def head(title: str, comparison: Comparison, *, live: bool, **more: Any) -> str:
    """A page up to its audits: headline, tables, charts, notes. `live`: served, not in a file."""
    _, digest = script()
    source = "'self'" if live else "'none'"
    return templates().get_template("run.html").render(
        title=title, comparison=comparison, charts=drawn(comparison), ranked=ranked(comparison),
        paired=paired(comparison), digest=digest,
        live=live, connect=source, style=(PAGES / "report.css").read_text("utf-8"), **more,
    )  # fmt: skip


def foot() -> str:
    """The page's end, with the script: what it reads stands before it."""
    return templates().get_template("foot.html").render(script=script()[0])


def row_of(number: int, record: AuditRecord) -> list[Any]:
    """What the table of audits knows of one; `report.js` reads it in this order."""
    held = sum(check.holds for check in record.checks)
    said = " ".join(record.hypothesis.split()) or (record.error or "")
    return [
        number, record.organism, record.agent, record.budget, record.repeat, record.status,
        record.grade, visible(said, SAYS), f"{held}/{len(record.checks)}" if record.checks else "", record.family,
    ]  # fmt: skip


def as_data(value: Any) -> str:
    """JSON that may stand in a script element: no text in it ends the element."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def audit_fragment(record: AuditRecord, transcript: Mapping[str, Any], fold: Fold | None = None) -> str:
    """One audit's hypothesis, claims and transcript. `fold` takes the messages that many audits were sent, and gives
    the name under which each stands elsewhere.
    """
    told = transcript.get("messages", ())
    messages = [(None, fold(each)) if fold and _is_shared(each) else (message_of(each), "") for each in told]
    return templates().get_template("audit.html").render(
        record=record, checks=checks_of(transcript, record), messages=messages
    )  # fmt: skip


def transcript_page(record: AuditRecord, transcript: Mapping[str, Any]) -> str:
    """One audit as a page of its own."""
    return templates().get_template("transcript.html").render(
        title=record.id, audit=audit_fragment(record, transcript), style=(PAGES / "report.css").read_text("utf-8")
    )  # fmt: skip


Fold = Callable[[Mapping[str, Any]], str]


def message_fragment(told: Mapping[str, Any]) -> str:
    """One message on its own."""
    return templates().get_template("message.html").render(message=message_of(told))


def _is_shared(told: Mapping[str, Any]) -> bool:
    """Instructions and overviews are the same in all repeats."""
    return told["type"] in ("system", "human") and len(told["data"]["content"]) > SHARED


def organism_fragment(name: str, sections: Sequence[Any], notes: Sequence[str]) -> str:
    """What the lenses read in one organism."""
    return templates().get_template("organism.html").render(name=name, sections=sections, notes=notes)


def _spanned(passage: Passage) -> list[Part]:
    return spanned(passage.text, passage.spans)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _p(value: float) -> str:
    return f"{value:.2g}" if value >= 0.0001 else "< 0.0001"
