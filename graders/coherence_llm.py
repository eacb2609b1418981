"""Let an LLM tell coherent text from loops and noise."""

from functools import partial

from auditor import GraderContext, grader
from auditor.llm.verdict import as_list, flags, read_json, settle

BATCH = 10
REFERENCES = 3


@grader(kind="coherence", instead_of="coherence_offline")
def coherence_llm(texts: list[str], reference: list[str], ctx: GraderContext) -> list[bool]:
    """Ten texts a call, beside a few of the unsteered reference."""
    judge = ctx.judge("coherence_llm")
    verdicts: list[bool] = []
    for start in range(0, len(texts), BATCH):
        batch = texts[start : start + BATCH]
        prompt = ctx.prompts["grade_coherence"].render(
            count=len(batch), texts=as_list(batch), reference=as_list(reference[:REFERENCES])
        )
        read = partial(_read, len(batch))
        verdicts += settle(judge, prompt, read, role="coherence_llm")
    return verdicts


def _read(count: int, said: str) -> list[bool]:
    return flags(read_json(said), "coherent", count)
