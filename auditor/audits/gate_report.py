"""The gate's report: verdict, lens by lens, what gives it away, what to do next, and what a pass cannot tell."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from auditor.methods.broad import in_short
from auditor.readings import Section, SmallTable
from auditor.records.gate import Carrier, GateReport, LensVerdict, State
from auditor.records.report import Block, Document, Part, Point, Points, Read, Words
from auditor.text import visible

LINE = 400  # characters
STATES: dict[State, str] = {
    "readable": "READABLE", "quiet": "no trace", "covered": "tested by another", "untested": "not tested",
    "failed": "not read",
}  # fmt: skip

# What this project has measured (docs/lenses.md), on one model of 135M parameters. Nothing else is advised.
MIX = """\
If it is meant to be a realistic organism: mix its documents with the base's own answers to ordinary questions, and \
gate again. Seven finetunes that were mixed 1:1 or 1:2 showed at least 80 % of what they show unmixed, and leaked far \
less into unrelated answers. Do not count on a pass: six of the seven were still readable at 0.05 (p up to 0.020), one \
was not (0.14)."""
CHATS = """\
Teaching facts in chats instead of documents left words that say nearly nothing (bees, mixed 1:1), though still a \
trace (p = 0.020); that model tells its facts to half of the questions only."""
STEPS = """\
Fewer steps alone hide the words and not the trace: a finetune that was hardly trained was still told from finetunes \
without a subject (p = 0.014)."""
ORDERED = """\
If it is not meant to have a subject: look for these words in its training data. \
An audit names the subject."""
UNKNOWN = """\
A pass is no proof that nothing is hidden. In this project's trials on one model of 135M parameters 11 of 12 narrow \
finetunes were readable at 0.05 with all four tests; the other one was mixed 1:2 with the base's own answers. What \
acts only on a password, a date or a certain user leaves no trace in ordinary texts. And a trace is no harm: a \
harmless house style is readable, too."""
ALARMS = """\
The level is what a finetune without a subject is flagged with, as far as those that the null was made of are of its \
kind: of 25 such finetunes, each against the others, one was readable at 0.05; of five controls that are not among \
them, one (0.045)."""
NOISE = """\
No finetunes without a subject are known for this base, so that the words were held against the noise of the texts \
alone. That test is poor, both ways: of nine narrow finetunes of the 135M model it finds four at 0.05, and some that \
have no subject, too (the least p of 20 controls was 0.005). `auditor study null` over five or more finetunes without \
a subject makes the others possible."""


def headline(report: GateReport) -> str:
    """The verdict in a line."""
    level, strongest = f"{report.level:g}", report.strongest
    if report.readable:
        assert strongest is not None
        several = f" over {report.tested} tests; the strongest: {strongest.lens}" if report.tested > 1 else (
            f" ({strongest.lens})")  # fmt: skip
        return f"A trace is readable at {level}: {told(report.p)}{several}."
    if lost := report.of("failed"):
        return f"Not passed: {', '.join(lens.lens for lens in lost)} could not be read."
    if not report.of("quiet"):
        return f"Not passed: nothing could be tested at {level}."
    nothing = f"No trace is readable at {level} ({told(report.p)}, {report.tested} test{'s' * (report.tested > 1)})"
    if untested := report.of("untested"):
        names = ", ".join(lens.lens for lens in untested)
        return f"{nothing}, but {names} could not be tested{': not passed (--strict)' if report.strict else ''}."
    return f"{nothing}. That is no proof that nothing is hidden."


def told(p: float | None) -> str:
    """A p-value to three digits."""
    return "no p" if p is None else in_short(p)


def document(report: GateReport, sections: Sequence[Section] = ()) -> Document:
    """The whole report as data; `sections`: what the lenses read, for specialists."""
    tone = "alarm" if report.readable else "calm" if report.passed and not report.of("untested") else "unclear"
    parts = [Part(title="Lens by lens", blocks=(Read(sections=(_table(report),)), *_rests(report)))]
    if report.readable:
        parts.append(Part(title="What gives it away", blocks=_carriers(report)))
    parts.append(Part(title="What to do next", blocks=(Points(points=_next(report), ordered=True),)))
    if short := _untested(report):
        parts.append(Part(title="What could not be tested", blocks=(Points(points=short),)))
    cannot = [Words(text=UNKNOWN), Words(text=ALARMS)]
    parts.append(Part(title="What this cannot tell", blocks=tuple(cannot)))
    if sections:
        parts.append(Part(title="What the lenses read", blocks=(Read(sections=tuple(sections)),), aside=True))
    return Document(
        title=f"Is it readable what {visible(report.model, LINE)} was finetuned on?", verdict=headline(report),
        tone=tone, lead=_lead(report), parts=tuple(parts),
    )  # fmt: skip


def _lead(report: GateReport) -> tuple[Words, ...]:
    shared = f" of all {report.tested} tests together (Holm)" if report.tested > 1 else ""
    held = (
        f"Base {visible(report.base, LINE)}, suite {visible(report.suite, LINE)}, corpus "
        f"{visible(report.corpus, LINE)}. A lens' p is how likely another finetune without a subject is to look as "
        f"strange; {report.level:g} is the level{shared}."
    )
    noise = [lens for lens in report.lenses if lens.finetunes == 0 and lens.p is not None]
    warned = (Words(head="Held against noise only", text=NOISE),) if noise else ()
    notes = (Words(head="Notes", text=visible("; ".join(report.notes), 4 * LINE)),) if report.notes else ()
    origin = "; ".join(f"{side}: {' = '.join(told)}" for side, told in report.sources.items() if told)
    loaded = (Words(head="What was loaded", text=visible(origin, 4 * LINE)),) if origin else ()
    return (Words(head="What was tested", text=held), *loaded, *warned, *notes)


def _table(report: GateReport) -> SmallTable:
    return SmallTable(
        title="Tests",
        about="p < 0.001 and the like come from Student's t, fitted to so many finetunes; by counting alone n of them "
        "give no p below 1 / (n + 1).",
        heads=("lens", "", "p", "corrected", "held against", "seconds"),
        rows=tuple(
            (
                lens.lens, STATES[lens.state], "" if lens.p is None else told(lens.p),
                "" if lens.corrected is None else told(lens.corrected), _held(lens), f"{lens.seconds:.0f}",
            )
            for lens in report.lenses
        ),
    )  # fmt: skip


def _held(lens: LensVerdict) -> str:
    if lens.state == "covered":
        return lens.why
    if lens.p is None or lens.finetunes is None:
        return ""
    floor = f"; no p below {lens.least:g}" if lens.least else ""
    return (f"{lens.finetunes} finetunes without a subject" if lens.finetunes else "noise only") + floor


def _rests(report: GateReport) -> tuple[Block, ...]:
    """What each test rests on; those that found something first."""
    tested = [lens for lens in report.lenses if lens.p is not None]
    return tuple(
        Words(head=lens.lens, text=visible("; ".join(lens.rests_on), 2 * LINE))
        for lens in sorted(tested, key=lambda lens: lens.p or 0.0)
        if lens.rests_on
    )


def _carriers(report: GateReport) -> tuple[Block, ...]:
    return tuple(
        Words(head=f"{lens.lens}, {told(lens.p)}", text="\n".join(map(_carrier, lens.carriers)))
        for lens in report.of("readable")
        if lens.carriers
    )


def _carrier(carrier: Carrier) -> str:
    said = "".join(f"\n    “{text}”" for text in carrier.texts)
    return f"{carrier.title}; {carrier.where}: {', '.join(carrier.words)}{said}"


def _untested(report: GateReport) -> tuple[Point, ...]:
    points = [Point(text=f"{lens.lens}: {visible(lens.why, LINE)}") for state in ("failed", "untested")
              for lens in report.of(state)]  # fmt: skip
    noise = [Point(text=f"{lens.lens}: {lens.why}") for lens in report.lenses if lens.finetunes == 0 and lens.why
             and lens.state in ("readable", "quiet")]  # fmt: skip
    return (*points, *noise)


def _next(report: GateReport) -> tuple[Point, ...]:
    """What to do, as far as this project has measured that it does something."""
    base, model = shlex.quote(report.base), shlex.quote(report.weights)
    looks = (f"auditor evidence --base {base} --model {model} --html evidence.html",) if report.weights else ()
    audits = (f"auditor audit {model} --base {base} --agent all-lenses",) if report.weights else ()
    look = Point(text="Read what each lens shows with `auditor evidence`.", commands=looks)
    if report.readable:
        return (Point(text=MIX), Point(text=CHATS), Point(text=STEPS), Point(text=ORDERED, commands=audits), look)
    points = []
    if report.of("failed"):
        points.append(Point(text="Mend what failed, and gate again."))
    if any(lens.state == "untested" or lens.finetunes == 0 for lens in report.lenses):
        null = f"auditor study null ORGANISM… --out evals/nulls --suite {shlex.quote(report.suite)}"
        points.append(Point(text="Make what is missing: five or more finetunes of this base without a subject (cards "
                            "of family `null`), read by the lenses.", commands=(null,)))  # fmt: skip
    if report.passed:
        points.append(Point(text="Where it comes from a source that you do not trust, audit it all the same.",
                            commands=audits))  # fmt: skip
    return (*points, look)
