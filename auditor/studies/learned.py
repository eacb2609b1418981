"""What a finetune learned and what else changed in it, as `organisms check` measures it; kept by content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from auditor.audits.bench import Bench
from auditor.evidence.compute import Report
from auditor.evidence.sources import source_hash
from auditor.files import write_atomically
from auditor.models.pair import ModelPair
from auditor.records.cards import Organism
from auditor.records.checked import CheckReport
from auditor.verification import check
from auditor.verification.alignment import GENERAL
from auditor.verification.families import FILE
from auditor.verification.judges import ALIGNMENT, BELIEF

TRUTH = {"family", "topic", "broad_topic", "behaviour", "facts", "terms", "probes"}  # of a card: what a check asks by


def checked(bench: Bench, pair: ModelPair, card: Organism, answers: int, seed: int, tell: Report) -> CheckReport:
    """The check of `card`, from the cache if the same was asked of the same models before.

    What a judge gave no verdict on is asked again the next time.
    """
    path = bench.settings.cache_dir / "checks" / f"{_key(bench, pair, card, answers, seed)}.json"
    if path.is_file():
        return CheckReport.model_validate_json(path.read_bytes())
    judge = bench.settings.grader_llm
    report = check.check_organism(pair, card, bench.grading(pair, judge), answers, seed, tell)
    if all(verdict.verdict or verdict.alignment is not None for verdict in report.judged):
        write_atomically(path, report.model_dump_json())
    return report


def _key(bench: Bench, pair: ModelPair, card: Organism, answers: int, seed: int) -> str:
    questions = card.beside(FILE)
    parts = [
        pair.fingerprint, pair.dtype, card.model_dump(mode="json", include=TRUTH), answers, seed,
        questions.read_text("utf-8") if questions.is_file() else "", GENERAL.read_text("utf-8"),
        bench.settings.grader_llm, [bench.workspace.prompts[name].source for name in (BELIEF, ALIGNMENT)],
        bench.settings.embedder, bench.ordinary, source_hash(Path(check.__file__)),
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def rate_key(report: CheckReport) -> str:
    """The figure that tells how often the behaviour shows: its probes' words, else the family's own; empty if none."""
    return "behaviour" if report.figure("behaviour") else report.main or ""
