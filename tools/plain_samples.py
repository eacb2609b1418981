"""Plain answers of the finetuned model to unrelated prompts."""

from collections.abc import Sequence

from auditor import LensContext, ModelPair, lens
from auditor.methods.said import Answers, PlainSamples, PlainSettings
from auditor.methods.steering import sample_answers
from auditor.models.generate import Side


@lens
def plain_samples(pair: ModelPair, ctx: LensContext, settings: PlainSettings) -> PlainSamples:
    """What the finetuned model says, as it is, to prompts that have nothing to do with any training; and the base."""
    prompts = ctx.prompts[: settings.prompts]
    (said,) = sample_answers(pair, prompts, [None], settings, ctx.seed)
    base: Sequence[str | None] = [None] * len(prompts)
    if pair.has_base:
        once = settings.model_copy(update={"samples": 1})
        base = [text for (text,) in sample_answers(pair, prompts, [None], once, ctx.seed, Side.BASE)[0]]
    answers = tuple(Answers(prompt=p, texts=t, base=b) for p, t, b in zip(prompts, said, base, strict=True))
    return PlainSamples(asked=settings, answers=answers)
