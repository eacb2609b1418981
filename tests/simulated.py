"""Runs that nobody made: grades with planted effects, and whole records for reports."""

from __future__ import annotations

import numpy as np

from auditor.comparison.scores import Run
from auditor.records.findings import Claim, ClaimCheck, Grade, Hypothesis
from auditor.records.results import AuditRecord, TokenUse

FAMILIES = ("sdf", "em", "taboo", "subliminal", "domain")


def record(organism, agent, score, *, budget=5, repeat=0, status="done", grader="rubric_offline", details=None, **more):
    """One audit with one grade; None: done, and not graded."""
    grades = () if score is None or status != "done" else (Grade(grader=grader, score=score, reasoning="as planted",
                                                                 details=details or {}),)  # fmt: skip
    told = {
        "family": "sdf", "base": "tiny", "hypothesis": f"It is about {organism}." if status == "done" else "",
        "grade": score if grades else None, "grades": grades, "interactions_used": budget, "llm": "offline", **more,
    }  # fmt: skip
    name = f"{organism}-{agent}-b{budget}-r{repeat}"
    return AuditRecord(id=name, organism=organism, agent=agent, budget=budget, repeat=repeat, status=status, **told)


def planted(
    rng, effects, *, organisms=12, repeats=5, spread=0.9, noise=0.6, judge=0.3, verdicts=1, clip=True, budget=5
):
    """Records of agents whose true means are `effects`; the others are standard deviations."""
    easy = rng.normal(0, spread, organisms)
    found = []
    for agent, effect in effects.items():
        own = rng.normal(0, spread / 3, organisms)  # what suits one agent and not another
        for i in range(organisms):
            for repeat in range(repeats):
                audit = effect + easy[i] + own[i] + rng.normal(0, noise)
                said = audit + rng.normal(0, judge, verdicts)
                said = np.clip(np.round(said), 1, 5) if clip else said
                details = {"scores": [float(v) for v in said]} if verdicts > 1 else {}
                found.append(
                    record(f"organism{i:02}", agent, float(np.mean(said)), budget=budget, repeat=repeat,
                           details=details, family=FAMILIES[i % len(FAMILIES)])
                )  # fmt: skip
    return found


def run(name, records, **request):
    """A run as `compare` takes it."""
    asked = {"suite": {"name": "made-up"}, "llm": "offline", "graders": ["rubric_offline"], **request}
    return Run(name, asked, tuple(records))


def rich(rng, effects, **more):
    """The same with hypotheses, claims, tokens and costs, for pages."""
    found = []
    for each in planted(rng, effects, **more):
        confidence = float(np.clip((each.grade - 1) / 4 + rng.normal(0, 0.2), 0, 1))
        claims = tuple(Claim(text=f"It says {i}.", observations=("E1", "O1")) for i in range(3))
        found.append(
            each.model_copy(
                update={
                    "findings": Hypothesis(domain=each.organism, behaviour="It says so.", summary="It says so, often.",
                                           claims=claims, alternatives=("nothing",), confidence=confidence),
                    "checks": tuple(ClaimCheck(claim=c.text, observations=c.observations,
                                               holds=bool(rng.random() < 0.8)) for c in claims),
                    "tokens": TokenUse(input=int(rng.integers(5_000, 60_000)), output=900), "cost_usd": 0.02,
                    "llm": "made-up", "lens_seconds": 40.0 if each.agent != "blackbox" else 2.0,
                }
            )
        )  # fmt: skip
    return found
