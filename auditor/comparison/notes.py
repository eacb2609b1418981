"""What whoever reads a comparison must know: what is open, left out, or not comparable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

from auditor.comparison.scores import Run, Scores
from auditor.records.comparison import RunNote, Standing

OPEN = ("queued", "running")
NAMED = 6  # contenders that a note names
GIVEN = ("ask", "evidence", "limits")  # parts of a suite that decide what its agents get


def noted(run: Run) -> RunNote:
    """A run at a glance."""
    return RunNote(
        name=run.name,
        suite=(run.request.get("suite") or {}).get("name", ""),
        llm=str(run.request.get("llm", "")),
        audits=len(run.records),
        expected=sum(run.states.values()) if run.states is not None else None,
        statuses=dict(Counter(record.status for record in run.records)),
    )


def notes_on(runs: Sequence[Run], scores: Scores, standings: Sequence[Standing]) -> list[str]:
    """One line each, the gravest first."""
    first = next((list(of) for _, of in groupby(standings, key=lambda each: each.grader)), [])
    if not any(each.n for each in standings):
        return ["no audit has a grade", *_open(runs), *_left_out(first)]
    return [*_open(runs), *scores.notes, *_given(runs), *_left_out(first), *_organisms(first)]


def _open(runs: Sequence[Run]) -> Iterator[str]:
    for run in runs:
        states = run.states or {}
        if left := sum(states.get(state, 0) for state in OPEN):
            yield f"run {run.name} has not ended: {left} of {sum(states.values())} audits are open"
        elif not run.records:
            yield f"run {run.name} has no audit that has ended"


def _given(runs: Sequence[Run]) -> Iterator[str]:
    """What the runs gave their agents, where it differs."""
    suites = [suite for run in runs if (suite := run.request.get("suite"))]
    if differing := [part for part in GIVEN if len({repr(suite.get(part)) for suite in suites}) > 1]:
        yield f"the runs' suites differ in {' and '.join(differing)}: not all contenders were given the same"


def _left_out(first: Sequence[Standing]) -> Iterator[str]:
    lost = [each for each in first if each.left_out]
    if len(lost) > NAMED:
        counts = sum((Counter(each.left_out) for each in lost), Counter[str]())
        told = [f"{_counted(counts)}, of {len(lost)} contenders"]
    else:
        told = [f"{each.contender}: {_counted(each.left_out)}" for each in lost]
    if told:
        yield f"audits left out of every figure: {'; '.join(told)}"


def _counted(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())


def _organisms(first: Sequence[Standing]) -> Iterator[str]:
    most = max(each.organisms for each in first)
    if most == 1:
        yield "one organism alone has no interval: nothing tells how another one would be graded"
    if partly := [f"{each.contender} ({each.organisms})" for each in first if 0 < each.organisms < most]:
        yield f"not on all {most} organisms: {', '.join(partly)}; differences are over the shared ones, means are not"
