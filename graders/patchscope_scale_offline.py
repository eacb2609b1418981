"""Choose the patchscope scale whose tokens hang together best, without an LLM."""

from auditor import GraderContext, ScaleChoice, TokenSet, grader
from auditor.methods.words import CohesionGauge, as_word, background_of, vocabulary_of


@grader(kind="patchscope_scale")
def patchscope_scale_offline(token_sets: list[TokenSet], ctx: GraderContext) -> ScaleChoice:
    """Cohesion of word embeddings, common words weighted down, against random sets of the vocabulary's words."""
    assert ctx.pair is not None
    gauge = CohesionGauge(vocabulary_of(ctx.pair.tokenizer, ctx.embed), background_of(tuple(ctx.background)), ctx.embed)
    measured = [(gauge.measure([t.token for t in candidate.tokens]), candidate) for candidate in token_sets]
    cluster, best = max(measured, key=lambda pair: pair[0].cohesion)
    kept = set(cluster.words)
    return ScaleChoice(
        scale=best.scale,
        selected=tuple(t.token for t in best.tokens if as_word(t.token) in kept),
        cohesion=round(cluster.cohesion, 2),
        reasoning=f"{len(kept)} related words; cohesion {cluster.cohesion:.1f} sd above random words",
    )
