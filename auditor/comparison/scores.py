"""From runs' records to one row a grade: whose it is, of what, and by whom; what is no grade is counted by reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from auditor.records.findings import Grade
from auditor.records.results import AuditRecord

NO_GRADE = "not graded"  # done, and its grader failed


@dataclass(frozen=True, slots=True)
class Run:
    """A run as it is compared. `states`: of all its jobs, where its ledger tells."""

    name: str
    request: Mapping[str, Any]
    records: Sequence[AuditRecord]
    states: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """An agent at one budget; `llm` and `run` only where they tell two apart."""

    agent: str
    budget: int
    llm: str = ""
    run: str = ""

    @property
    def name(self) -> str:
        return " · ".join(filter(None, (f"{self.agent} @{self.budget}", self.llm, self.run)))

    @property
    def agent_name(self) -> str:
        """The same over all its budgets."""
        return " · ".join(filter(None, (self.agent, self.llm, self.run)))


@dataclass(frozen=True, slots=True)
class Score:
    """One grader's grade of one audit."""

    contender: Contender
    organism: str
    record: AuditRecord
    grade: Grade


@dataclass(frozen=True, slots=True)
class Scores:
    """Everything that was graded, by grader, and every audit by contender."""

    by_grader: Mapping[str, Sequence[Score]]
    audits: Mapping[Contender, Sequence[AuditRecord]]
    notes: Sequence[str] = field(default_factory=tuple)
    origins: Mapping[str, tuple[Run, str]] = field(default_factory=dict)  # a grader's run, and its name there

    def left_out(self, contender: Contender, grader: str) -> dict[str, int]:
        """Its audits that this grader's figures leave out, by reason."""
        graded = {id(score.record) for score in self.by_grader[grader] if score.contender == contender}
        missing = [record for record in self.audits[contender] if id(record) not in graded]
        return dict(Counter(NO_GRADE if record.status == "done" else record.status for record in missing))


def scores_of(runs: Sequence[Run], graders: Sequence[str] = ()) -> Scores:
    """Every grade of audits that are done. `graders`: these alone, and in this order; default: all, the runs' first
    ones first.

    What has the same name in two runs and is not the same is told apart by the run, and noted.
    """
    seen = defaultdict[tuple[str, int], set[int]](set)
    llms = {record.llm for run in runs for record in run.records}
    for i, run in enumerate(runs):
        for record in run.records:
            seen[record.agent, record.budget].add(i)
    judged, notes = _graders(runs)
    changed = _changed(runs, "organisms")
    if changed:
        notes.append(f"{_listed(changed)}: another card in each run; they are taken for different organisms")
    by_grader: dict[str, list[Score]] = {}
    audits: dict[Contender, list[AuditRecord]] = {}
    for i, run in enumerate(runs):
        for record in run.records:
            several = len(seen[record.agent, record.budget]) > 1
            llm = record.llm if len(llms) > 1 else ""
            whose = Contender(record.agent, record.budget, llm, run.name if several else "")
            audits.setdefault(whose, []).append(record)
            organism = f"{record.organism} ({run.name})" if record.organism in changed else record.organism
            for grade in record.grades if record.status == "done" else ():
                by_grader.setdefault(judged[i, grade.grader], []).append(Score(whose, organism, record, grade))
    first = [judged.get((i, name), name) for i, run in enumerate(runs) for name in run.request.get("graders", ())]
    order = list(dict.fromkeys([*first, *by_grader]))
    if graders:
        order = list(dict.fromkeys(name for wanted in graders for name in order if is_called(name, wanted)))
    origins = {label: (runs[i], name) for (i, name), label in judged.items()}
    return Scores({name: by_grader.get(name, []) for name in order}, audits, notes, origins)


def is_called(label: str, wanted: str) -> bool:
    """Whether a grader is meant by its whole label, or by its name alone."""
    return label == wanted or label.split("@")[0].split(" (")[0] == wanted


def _graders(runs: Sequence[Run]) -> tuple[dict[tuple[int, str], str], list[str]]:
    """What each run's graders are called here: two of one name that judge otherwise are two graders."""
    judges = {
        (i, grade.grader): judge_of(grade) for i, run in enumerate(runs) for record in run.records
        for grade in record.grades
    }  # fmt: skip
    several = {name for _, name in judges if len({judge for (_, n), judge in judges.items() if n == name}) > 1}
    names = {
        (i, name): f"{name}@{judge}" if name in several and judge and "@" not in name else name
        for (i, name), judge in judges.items()
    }
    notes = []
    for label in dict.fromkeys(names.values()):
        keys = [key for key, other in names.items() if other == label]
        means = [_means(runs[i], name, judges[i, name]) for i, name in keys]
        if differing := [part for part in means[0] if any(_other(each[part], means[0][part]) for each in means)]:
            names |= {(i, name): f"{label} ({runs[i].name})" for i, name in keys}
            told = "; its grades are shown by run, with no difference between them"
            notes.append(f"{label}: not the same {' and '.join(differing)} in all runs{told}")
    return names, notes


def judge_of(grade: Grade) -> str:
    """The chat model that gave it; empty: code did."""
    return grade.judge or str(grade.details.get("judge", ""))


def _means(run: Run, grader: str, judge: str) -> dict[str, Mapping[str, Any]]:
    """What decides a grade beside judge and hypothesis, as far as the run's request tells."""
    prompts = {key: value for key, value in (run.request.get("prompts") or {}).items() if key.startswith("grade_")}
    plugin = (run.request.get("plugins") or {}).get(grader.split("@")[0]) or {}
    source = {"sha256": plugin["sha256"]} if "sha256" in plugin else {}
    return {
        "rubrics": run.request.get("rubrics") or {},
        "source of the grader": source,
        "prompts of the judge": prompts if judge else {},
    }


def _other(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    return any(one[name] != two[name] for name in one.keys() & two.keys())


def _changed(runs: Sequence[Run], part: str) -> set[str]:
    """Entries of the requests' `part` that have one name and are not the same."""
    values = defaultdict[str, set[str]](set)
    for run in runs:
        for name, value in (run.request.get(part) or {}).items():
            values[name].add(repr(value))
    return {name for name, different in values.items() if len(different) > 1}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
