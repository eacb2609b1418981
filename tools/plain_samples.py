"""Plain answers of the finetuned model to unrelated prompts."""

from auditor import LensContext, ModelPair, lens
from auditor.methods.said import Answers, PlainSamples, PlainSettings
from auditor.methods.steering import sample_answers


@lens
def plain_samples(pair: ModelPair, ctx: LensContext, settings: PlainSettings) -> PlainSamples:
    """What the finetuned model says, as it is, to prompts that have nothing to do with any training."""
    prompts = ctx.prompts[: settings.prompts]
    (said,) = sample_answers(pair, prompts, [None], settings, ctx.seed)
    answers = tuple(Answers(prompt=p, texts=texts) for p, texts in zip(prompts, said, strict=True))
    return PlainSamples(asked=settings, answers=answers)
