"""Let an LLM choose the patchscope scale whose tokens hang together best."""

from auditor import GraderContext, ScaleChoice, TokenSet, grader
from auditor.llm.at_once import all_of
from auditor.llm.verdict import Unreadable, as_quote, field, read_json, settle
from auditor.methods.words import CohesionGauge, background_of, vocabulary_of

BATCH = 10


@grader(kind="patchscope_scale", instead_of="patchscope_scale_offline")
def patchscope_scale_llm(token_sets: list[TokenSet], ctx: GraderContext) -> ScaleChoice:
    """Ten scales a call, then a final between the winners; tokens that were not in the set are asked again."""
    winners, judge = token_sets, ctx.judge("patchscope_scale_llm")
    while True:
        batches = [winners[i : i + BATCH] for i in range(0, len(winners), BATCH)]
        rounds = all_of(batches, lambda batch: _choose(batch, ctx), judge)
        if len(rounds) == 1:
            best, selected, reasoning = rounds[0]
            break
        winners = [winner for winner, _, _ in rounds]
    assert ctx.pair is not None
    gauge = CohesionGauge(vocabulary_of(ctx.pair.tokenizer, ctx.embed), background_of(tuple(ctx.background)), ctx.embed)
    cohesion = gauge.measure([t.token for t in best.tokens]).cohesion  # comparable between positions
    return ScaleChoice(scale=best.scale, selected=tuple(selected), cohesion=round(cohesion, 2), reasoning=reasoning)


def _choose(sets: list[TokenSet], ctx: GraderContext) -> tuple[TokenSet, list[str], str]:
    listed = "\n".join(
        f"Set {i}: {' '.join(as_quote(t.token.strip()) for t in candidate.tokens)}"
        for i, candidate in enumerate(sets, 1)
    )

    def read(said: str) -> tuple[TokenSet, list[str], str]:
        answer = read_json(said)
        number, selected = field(answer, "set", int), field(answer, "selected", list)
        if not 1 <= number <= len(sets):
            raise Unreadable(f"there is no set {number}; they are numbered 1 to {len(sets)}")
        chosen = sets[number - 1]
        there = {t.token.strip(): t.token for t in chosen.tokens}
        if absent := [token for token in selected if str(token).strip() not in there]:
            raise Unreadable(f"these tokens are not in set {number}: {', '.join(map(str, absent[:5]))}")
        return chosen, [there[str(token).strip()] for token in selected], str(answer.get("reasoning", ""))[:500]

    prompt = ctx.prompts["grade_scale"].render(sets=listed)
    return settle(ctx.judge("patchscope_scale_llm"), prompt, read, role="patchscope_scale_llm")
