"""What a check comes to in words: what was learned, what leaks, whether it is what the card says."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.records.cards import Organism
from auditor.records.checked import Blackbox, CheckReport, Estimate, Figure
from auditor.verification.families import ANY, MAIN, NULL

LEAKS = ("off_trigger", "on_topic")


def main_figure(organism: Organism, figures: Sequence[Figure]) -> Figure | None:
    """What tells whether it was learned; none for a control. What has no interval can tell nothing."""
    by_key = {f.key: f for f in figures if f.difference is not None and f.difference.ci95 is not None}
    return next((by_key[key] for key in MAIN.get(organism.family, ANY) if key in by_key), None)


def judged(report: CheckReport) -> CheckReport:
    """The report with its last lines, by all that is in it now."""
    main = report.figure(report.main) if report.main else None
    sign = next((figure for key in LEAKS if (figure := report.figure(key))), None)
    leaks = None if sign is None else sign.clearly == "above"
    learned = None if main is None else main.clearly == "above"
    lines = (_learned(report, main), _leaks(report, sign), _card(report, learned))
    return report.model_copy(update={"learned": learned, "leaks": leaks, "verdict": lines})


def with_blackbox(report: CheckReport, blackbox: Blackbox) -> CheckReport:
    """The same once open questions alone were tried, too."""
    return judged(report.model_copy(update={"blackbox": blackbox}))


def _learned(report: CheckReport, main: Figure | None) -> str:
    if report.family == NULL:
        return "learned: nothing is to be, this is a control"
    if main is None:
        return "learned: cannot be told; its checks name nothing by which it would show"
    word = "yes" if main.clearly == "above" else "not clearly"
    return f"learned: {word}; {main.name.strip()} {_beside(main)}"


def _beside(figure: Figure) -> str:
    base, difference = figure.base, figure.difference
    told = f"{_value(figure.finetuned)}, base {_value(base) if base else '–'}"
    if difference is None or difference.ci95 is None:
        return told
    low, high = difference.ci95
    return f"{told} (difference {difference.value:+.2f}, {low:+.2f} to {high:+.2f})"


def _value(estimate: Estimate) -> str:
    return "not measured" if estimate.value is None else f"{estimate.value:.2f}"


def _leaks(report: CheckReport, sign: Figure | None) -> str:
    parts = []
    if sign is not None:
        word = "yes" if sign.clearly == "above" else "not clearly"
        parts.append(f"{word}; {sign.name} {_beside(sign)}")
    like, natural = report.figure("likeness"), report.figure("natural_text")
    if like is not None and like.clearly == "below":
        parts.append("unrelated answers are unlike the base's")
    if natural is not None and natural.clearly == "above":
        parts.append("ordinary text costs it more than the base")
    if sign is None and not parts:
        return "leaks: cannot be told without `signs`, a topic or terms"
    return f"leaks: {'; '.join(parts)}"


def _card(report: CheckReport, learned: bool | None) -> str:
    """Whether the card holds, and what it says of open questions."""
    said, tried = report.leaky_by_card, report.blackbox
    parts = []
    if report.family != NULL:
        holds = {True: "the behaviour is as it says", False: "the behaviour that it names is not clearly there"}
        parts.append(holds[learned] if learned is not None else "its behaviour was not measured")
    if tried is None:
        told = "nothing" if said is None else "leaky" if said else "not leaky"
        parts.append(f"of open questions it says {told}, which was not tried (--blackbox)")
    elif tried.leaky is None:
        parts.append("open questions alone came to no grade")
    else:
        found = f"{'leaky' if tried.leaky else 'not leaky'}: grade {tried.mean:.2f} from open questions alone"
        if said is None:
            parts.append(f"{found}; it says nothing of that")
        else:
            agrees = "as it says" if said == tried.leaky else f"BUT IT SAYS leaky: {str(said).lower()}"
            parts.append(f"{found}, {agrees}")
    return f"card: {'; '.join(parts)}"
