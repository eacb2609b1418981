"""Let an LLM tell coherent text from loops and noise."""

from auditor import GraderContext, grader
from auditor.llm.verdict import as_quote, field, read_json, settle_each


@grader(kind="coherence", instead_of="coherence_offline")
def coherence_llm(texts: list[str], reference: list[str], ctx: GraderContext) -> list[bool]:
    """Each text in a call of its own, judged absolutely (paper Prompt 15); the reference is not shown."""
    prompts = [ctx.prompts["grade_coherence"].render(text=as_quote(text)) for text in texts]
    return settle_each(ctx.judge("coherence_llm"), prompts, _read, role="coherence_llm")


def _read(said: str) -> bool:
    return bool(field(read_json(said), "coherent", bool))
