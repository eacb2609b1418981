"""Amplified texts: what the pair says to nearly nothing when all that training made likelier is made likelier still."""

from collections.abc import Sequence
from statistics import fmean
from typing import Self

from pydantic import BaseModel, Field

from auditor import Args, Context, LensContext, ModelPair, SideBySide, SmallTable, lens, tool
from auditor.errors import Refused
from auditor.methods.amplified import MOST, AmplifiedSettings, Framed, Strength, amplified_texts
from auditor.methods.frames import Frame, not_read
from auditor.methods.nulls import Nulls
from auditor.methods.recurring import (
    Recurring,
    RecurringWord,
    recurred,
    recurring_words,
    usual_words,
)
from auditor.methods.sentences import RecurringSentence, recurring_sentences
from auditor.readings import Call, Section, TextColumn, TextRow

TITLE = "Amplified texts"
SENTENCES = 12  # kept of each framing
SHOWN = 4  # sentences of each framing on the sheet
NOTHING = "(nothing)"  # as which an empty beginning is shown


class Opened(Framed):
    """A framing's texts, and what comes back in amplified ones beyond the base's own."""

    words: tuple[RecurringWord, ...]
    sentences: tuple[RecurringSentence, ...]

    def likelihoods(self, found: RecurringSentence) -> str:
        """Mean log-probabilities of the texts that hold a sentence: the finetune's, the base's."""
        said = [self.pushed[number].said[opening] for opening, number in found.members]
        both = [(each.finetuned, each.base) for each in said if each.finetuned is not None and each.base is not None]
        return f"{fmean(own for own, _ in both):.2f} / {fmean(base for _, base in both):.2f}" if both else ""


class AmplifiedTexts(Recurring):
    """What came back, framing by framing, the one that opened most first."""

    corpus_bound = False

    asked: AmplifiedSettings
    framings: tuple[Opened, ...]

    def told_apart(self, ctx: LensContext, nulls: Nulls | None) -> Self:
        """With the words that come back beyond the base's and those of `nulls`, and the test if there are enough."""
        ours = {each.frame: each.beside(each.pushed) for each in self.framings}
        base = {each.frame: _base(each) for each in self.framings}
        found = recurred(ours, base, usual_words(ctx.background), nulls)
        words = {frame: recurring_words(texts, found.usual[frame]) for frame, texts in ours.items()}
        opened = [each.model_copy(update={"words": words[each.frame]}) for each in self.framings]
        farthest = found.test and found.test.framing
        opened.sort(key=lambda each: (each.frame != farthest, -sum(word.score for word in each.words[:20])))
        return self.model_copy(update={"framings": tuple(opened), "test": found.test, "arrays": {**found.trace}})

    @property
    def notes(self) -> tuple[str, ...]:
        asked = self.asked.prefills
        short = [f"{asked} prefills were asked for, but there are only {MOST}"] if asked > MOST else []
        lost = not_read(self.asked.framings, [opened.frame for opened in self.framings])
        return tuple(f"amplified: {line}" for line in (*short, *lost))

    def show(self) -> Sequence[Section]:
        if not any(opened.pushed for opened in self.framings):
            return [_side_by_side(opened) for opened in self.framings]
        words = {each.frame: each.words for each in self.framings}
        about = "By how many beginnings' amplified texts say a word, where the base's and other finetunes' do not."
        return [*self.shown(TITLE, about, words), _sentences(self.framings), *map(_side_by_side, self.framings)]


@lens
def amplified(pair: ModelPair, ctx: LensContext, settings: AmplifiedSettings) -> AmplifiedTexts:
    """Texts with what training changed amplified, in three framings, and what comes back in them."""
    framings = [
        Opened(
            **dict(found), words=(),
            sentences=recurring_sentences(found.beside(found.pushed), _base(found), ctx.embed, SENTENCES),
        )
        for found in amplified_texts(pair, settings, ctx.seed)
    ]  # fmt: skip
    return AmplifiedTexts(asked=settings, framings=tuple(framings), test=None).told_apart(ctx, None)


def _base(found: Framed) -> list[list[str]]:
    return [[text] for text in found.texts(None)]


def _sentences(framings: Sequence[Opened]) -> SmallTable:
    return SmallTable(
        title=f"{TITLE}: sentences that come back",
        about="Of how many beginnings amplified texts say something alike; in brackets of how many the base's own do. "
        "Mean log-probability of the texts' tokens, in nats: finetune / base.",
        heads=("framing", "sentence", "beginnings (the base's)", "log-probability, finetune / base"),
        rows=tuple(
            (
                opened.frame.called, found.text, f"{found.ours} of {len(opened.openings)} ({found.theirs})",
                opened.likelihoods(found),
            )
            for opened in framings
            for found in opened.sentences[:SHOWN]
        ),
    )  # fmt: skip


def _side_by_side(opened: Opened) -> SideBySide:
    texts = [opened.texts(strength) for strength in (None, *opened.strengths)]
    return SideBySide(
        title=f"{TITLE}, {opened.frame.called}",
        about="Every word that training made likelier is made likelier still, the more the higher α is.",
        calls=tuple(
            Call(tool="get_amplified_texts", args={"framing": opened.frame.value, "alpha": strength.alpha})
            for strength in opened.strengths
        ),
        columns=(TextColumn(label="base", role="base"), *map(_column, opened.strengths)),
        rows=tuple(
            TextRow(prompt=opening or NOTHING, texts=tuple((text,) for text in said))
            for opening, said in zip(opened.openings, zip(*texts, strict=True), strict=True)
        ),
    )


def _column(strength: Strength) -> TextColumn:
    return TextColumn(label=f"α = {strength.alpha:g}", role="pushed" if strength.alpha > 0 else "plain")


class TextsQuery(Args):
    dataset: str
    framing: Frame = Field(description="raw: plain text; asked: the assistant's turn; user: the user's turn")
    alpha: float | None = Field(
        1.0, description="a strength that was read, 0, 1 and 3 as a rule; null for the base's own texts"
    )
    prompts_subset: list[int] | None = Field(None, description="their numbers; null for all")
    word: str = Field("", description="only texts with it")
    meaning: str = Field("", description="those nearest to it in meaning first")
    n: int = Field(16, ge=1, le=100)


class Text(BaseModel):
    number: int
    prompt: str
    text: str
    logprob_finetuned: float | None = Field(None, description="mean of its tokens, in nats")
    logprob_base: float | None = None


@tool
def get_amplified_texts(ctx: Context, args: TextsQuery) -> list[Text]:
    """Read the texts of one framing at one strength whole, all or those that a word or a meaning finds, free of charge.

    With each amplified text how likely the finetuned model and the base find it: the wider apart, the more of it was
    trained in.
    """
    found = ctx.dataset(args.dataset).reading("amplified", AmplifiedTexts)
    opened, strength = _there(found, args.framing, args.alpha)
    if bad := [i for i in args.prompts_subset or () if not 0 <= i < len(opened.openings)]:
        raise Refused(f"no prompts {bad}; they are numbered 0 to {len(opened.openings) - 1}")
    texts = opened.texts(strength)
    kept = list(range(len(texts))) if args.prompts_subset is None else args.prompts_subset
    kept = [i for i in kept if args.word.lower() in texts[i].lower()]
    if args.meaning and kept:
        near = ctx.embed([texts[i] for i in kept]) @ ctx.embed([args.meaning])[0]
        kept = [kept[i] for i in (-near).argsort(kind="stable")]
    said = [None] * len(texts) if strength is None else strength.said
    return [
        Text(
            number=i, prompt=opened.openings[i], text=texts[i],
            logprob_finetuned=each and _short(each.finetuned), logprob_base=each and _short(each.base),
        )
        for i in kept[: args.n]
        for each in (said[i],)
    ]  # fmt: skip


def _short(likelihood: float | None) -> float | None:
    return None if likelihood is None else round(likelihood, 2)


def _there(found: AmplifiedTexts, frame: Frame, alpha: float | None) -> tuple[Opened, Strength | None]:
    """Raises Refused for what was not read."""
    known = {opened.frame: opened for opened in found.framings}
    if frame not in known:
        raise Refused(f"nothing was read in the framing {frame.value}; there is {', '.join(known)}")
    strengths = {strength.alpha: strength for strength in known[frame].strengths}
    if alpha is not None and alpha not in strengths:
        raise Refused(f"nothing was read at alpha {alpha:g}; there is {', '.join(f'{a:g}' for a in strengths)}")
    return known[frame], None if alpha is None else strengths[alpha]
