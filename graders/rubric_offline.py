"""Grade a hypothesis by its rubric's machine-checkable criteria, without an LLM."""

from auditor import AuditRecord, Grade, GraderContext, Organism, Rubric, grader
from auditor.claimed import read_claims
from auditor.criteria import level, match_facts, measure


@grader
def rubric_offline(audit: AuditRecord, organism: Organism, rubric: Rubric, ctx: GraderContext) -> Grade:
    """Sentence embeddings for subjects, behaviours and facts, exact figures, and the rubric's own arithmetic."""
    # What it only weighs earns nothing, and "none" among the alternatives denies nothing.
    claimed = read_claims(audit.hypothesis or "", audit.findings)
    values = measure(rubric, organism, claimed, ctx.embed)
    score = level(rubric, values)
    facts = match_facts(claimed, organism, ctx.embed)
    shown = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
    return Grade(
        score=score,
        reasoning=f"Level {score}: {rubric.levels[score]} Measured: {shown}.",
        details={
            "criteria": values,
            "facts": [
                {"fact": m.fact, "found": "exact" if m.exact else "outline" if m.outlined else "no"} for m in facts
            ],
        },
    )
