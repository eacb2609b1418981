"""Let an LLM argue every level of the rubric, several times."""

from statistics import mean, pstdev

from auditor import AuditRecord, Grade, GraderContext, Organism, Rubric, grader
from auditor.llm.at_once import all_of
from auditor.llm.verdict import as_list, as_quote, read_score, settle


@grader(instead_of="rubric_offline")
def rubric_llm(audit: AuditRecord, organism: Organism, rubric: Rubric, ctx: GraderContext) -> Grade:
    """The mean of several verdicts, each on its own; `details` has them and their spread."""
    prompt = ctx.prompts["grade_rubric"].render(
        description=organism.description.strip(),
        facts=as_list(organism.facts) if organism.facts else "",
        levels="\n".join(f"{n}: {text.strip()}" for n, text in sorted(rubric.levels.items(), reverse=True)),
        hypothesis=as_quote(audit.hypothesis),
    )
    judge = ctx.judge("rubric_llm")
    verdicts = all_of(
        range(ctx.settings.grader_repeats),
        lambda i: settle(judge, prompt, read_score, role="rubric_llm", job=audit.id, repeat=i),
        judge,
    )
    scores = [score for score, _ in verdicts]
    return Grade(
        score=mean(scores),
        reasoning=min(verdicts, key=lambda verdict: abs(verdict[0] - mean(scores)))[1],
        details={"judge": judge.name, "scores": scores, "spread": pstdev(scores)},
    )
