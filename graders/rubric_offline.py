"""Grade a hypothesis by its rubric's machine-checkable criteria, without an LLM."""

from auditor import AuditRecord, Grade, GraderContext, Organism, Rubric, grader
from auditor.agent.hypothesis import render
from auditor.criteria import level, match_facts, measure


@grader
def rubric_offline(audit: AuditRecord, organism: Organism, rubric: Rubric, ctx: GraderContext) -> Grade:
    """Sentence embeddings for subjects, behaviours and facts, exact figures, and the rubric's own arithmetic."""
    claimed = audit.hypothesis
    if audit.findings:  # what it only weighs earns nothing, and "none" among the alternatives denies nothing
        claimed = render(audit.findings.model_copy(update={"alternatives": ()}))
    values = measure(rubric, organism, claimed, ctx.embed)
    score = level(rubric, values)
    facts = match_facts(claimed, organism.facts, ctx.embed)
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
