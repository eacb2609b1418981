"""One finetune of a sweep measured: checks, token relevance, steering similarity, every lens' trace, agents' grades."""

from __future__ import annotations

import gc
import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean

from auditor.audits.bench import Bench
from auditor.audits.check import check as demand_plan
from auditor.audits.plan import Plan, judged_by, target_of
from auditor.audits.request import request
from auditor.audits.run import Sitting, evaluate
from auditor.config import Settings
from auditor.evidence.compute import Report
from auditor.evidence.mapping import Evidence
from auditor.ledger.ledger import LEDGER, Ledger
from auditor.llm.journal import Journal
from auditor.models.pair import ModelPair
from auditor.records.cards import Organism, Suite
from auditor.records.checked import CheckReport
from auditor.studies.learned import checked, rate_key
from auditor.studies.points import BASE, FLOOR, GRADE, OVER, RATE, TRACE, Measured
from auditor.studies.relevance import best, judged
from auditor.studies.similarity import similarities
from auditor.studies.subject import Subject, reference_chats, subject_of
from auditor.studies.variants import with_organisms
from auditor.workspace import Workspace

READ = ("logit_lens", "patchscope", "steering")  # what relevance and similarity are made of
RUNS = "runs"  # in the study's folder


@dataclass(frozen=True)
class Probe:
    """How every finetune of a sweep is measured.

    `suite`: its evidence settings, and its agents, budgets and graders where `agents`; `lenses`: whose traces are
    told; `answers`: to each question of the checks; `journal`: where judges' calls are kept.
    """

    ws: Workspace
    conf: Settings
    suite: Suite
    lenses: tuple[str, ...]
    answers: int
    agents: bool
    folder: Path
    tell: Report
    journal: Journal

    @cached_property
    def bench(self) -> Bench:
        return Bench(self.ws, self.conf, self.journal)

    def rate(self, card: Organism) -> Measured:
        """What the checks alone tell."""
        pair = self.bench.pair(target_of(card))
        try:
            return of_check(self._checked(pair, card))
        finally:
            del pair
            gc.collect()  # models hold reference cycles

    def whole(self, card: Organism) -> Measured:
        """All of it. What could not be read is told in the notes."""
        subject = subject_of(self.bench, card, self.suite.evidence)
        found = of_check(self._checked(subject.pair, card))
        read = self.bench.evidence(subject.pair, self.suite.evidence, (*READ, *self.lenses), self._telling(card))
        values, notes = (
            {**found.values},
            [*found.notes, *(f"{n} was not read: {why}" for n, why in read.failed.items())],
        )
        self.tell(f"{card.name}: tokens and answers")
        values |= dict(_read(subject, read, self.ws)) | dict(_traces(subject, read, self.lenses, notes))
        weights = subject.pair.fingerprint, subject.pair.dtype
        del subject, read
        gc.collect()
        if self.agents:
            values |= self._grades(card, weights, notes)
        return found.model_copy(update={"values": values, "notes": tuple(notes)})

    def _checked(self, pair: ModelPair, card: Organism) -> CheckReport:
        return checked(self.bench, pair, card, self.answers, self.suite.evidence.seed, self._telling(card))

    def _telling(self, card: Organism) -> Report:
        return lambda stage: self.tell(f"{card.name}: {stage}")

    def _grades(self, card: Organism, weights: tuple[str, str], notes: list[str]) -> Mapping[str, float]:
        """Mean grades by agent and budget, of a run that is kept; what was cut off or failed is tried again.

        `weights`: the pair's fingerprint and type; a run is of these alone, whatever is trained under the same name.
        """
        suite = judged_by(self.ws, self.suite.model_copy(update={"organisms": (card.name,)}), self.conf)
        plan = Plan(with_organisms(self.ws, [card]), suite, self.conf)
        demand_plan(plan)
        told = json.dumps([request(plan), weights], sort_keys=True, default=str)
        folder = self.folder / RUNS / f"{card.name}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
        self.tell(f"{card.name}: agents")
        with Ledger.open(folder) as ledger:
            resume = (folder / LEDGER).exists() and ledger.request() is not None
            run = evaluate(plan, ledger, Sitting(resume=resume, retry_failed=True))
        grades: dict[str, list[float]] = {}
        for audit in run.audits:
            if audit.grade is not None:
                grades.setdefault(f"{GRADE}{audit.agent} at {audit.budget}", []).append(audit.grade)
            else:
                notes.append(f"{audit.agent} at {audit.budget}: {audit.error or audit.status}")
        return {key: fmean(given) for key, given in grades.items()}


def of_check(report: CheckReport) -> Measured:
    """A check's figures by their keys (the finetune's, the base's, their difference), and the rate that is matched."""
    values: dict[str, float] = {}
    for figure in report.figures:
        for prefix, estimate in (("", figure.finetuned), (BASE, figure.base)):
            if estimate is not None and estimate.value is not None:
                values[prefix + figure.key] = estimate.value
        if figure.difference is not None and figure.difference.value is not None:
            values[OVER + figure.key] = figure.difference.value
    by = rate_key(report)
    if by in values:
        values[RATE] = values[by]
    return Measured(values=values, rate_by=by if by in values else "", marks=report.marks(), notes=report.notes)


def _read(subject: Subject, read: Evidence, ws: Workspace) -> Iterator[tuple[str, float]]:
    """Token relevance and steering similarity, each at its best position."""
    if {"logit_lens", "patchscope"} <= set(read):
        rows, sinks = judged(subject, read)
        for lens in dict.fromkeys(row.lens for row in rows):
            yield f"relevance {lens}", best([row for row in rows if row.lens == lens], "δ", sinks)
        yield "relevance base", best(rows, "mean base", sinks)
        yield "relevance finetuned", best(rows, "mean finetuned", sinks)
    if "steering" in read:
        curves, ceiling = similarities(subject, read, reference_chats(ws, subject.recipe.grading.settings))
        if curves:
            yield "similarity steered", max(row.steered_finetuning for row in curves)
            yield "similarity plain", max(row.unsteered_finetuning for row in curves)
            yield "similarity within", ceiling[0]


def _traces(subject: Subject, read: Evidence, lenses: Sequence[str], notes: list[str]) -> Iterator[tuple[str, float]]:
    """−log10 p of each lens that has one."""
    for lens in lenses:
        if lens not in read:
            continue
        p, recipe = read[lens].p, subject.recipe
        told = "no p-value" if p is None else "its p-value is against noise alone"
        if not recipe.nulls_of(recipe.lenses[lens]):
            notes.append(f"{lens}: {told}; there are no nulls of this base and these settings (`study null`)")
        elif p is None:
            notes.append(f"{lens}: {told}; its test said nothing")
        if p is not None:
            yield f"{TRACE}{lens}", -math.log10(max(p, FLOOR))
