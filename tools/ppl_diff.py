"""Perplexity differencing: what the finetune makes of beginnings of ordinary texts, and the reference would not."""

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, Field

from auditor import Args, Compared, Context, LensContext, ModelPair, SideBySide, lens, tool
from auditor.errors import Refused
from auditor.lenses import BASE, NONE
from auditor.methods import ppl_diff as core
from auditor.methods.frames import Frame, frames_read, not_read
from auditor.methods.nulls import Nulls
from auditor.methods.recurring import (
    Recurring,
    RecurringWord,
    recurred,
    recurring_words,
    spread,
    usual_words,
)
from auditor.readings import Call, Section, TextColumn, TextRow

FIRST = 25  # completions of each framing that are shown, and that words come back in
TITLE = "Perplexity differences"


class PplDiffSettings(core.PplSettings):
    framings: tuple[Frame, ...] = Field((Frame.RAW, Frame.ASKED), min_length=1, description="all prefills in each")
    reference: Annotated[str, Compared()] = Field(
        "base", description="whose surprise counts: base, another model's hub id or folder, or none: ranked by how "
        "sure the finetune is"
    )  # fmt: skip


class Ranked(core.PplDiff):
    """A framing's completions, and the words that come back in the first of them beyond the others."""

    words: tuple[RecurringWord, ...]

    def whole(self, completion: core.Completion) -> str:
        return self.frame.whole(completion.prefill, completion.text)


class PplDifferences(Recurring):
    """The ranked completions of each framing."""

    asked: PplDiffSettings
    framings: tuple[Ranked, ...]

    def told_apart(self, ctx: LensContext, nulls: Nulls | None) -> Self:
        """With the words that come back in the first completions, beyond those of the others and of `nulls`."""
        texts = {found.frame: [[completion.text] for completion in found.completions] for found in self.framings}
        first = {frame: said[:FIRST] for frame, said in texts.items()}
        judged = recurred(first, {}, usual_words(ctx.background), nulls)
        framings = []
        for found in self.framings:
            others = texts[found.frame][FIRST:]
            usual = judged.usual[found.frame].beside(spread(others), len(others))
            framings.append(found.model_copy(update={"words": recurring_words(first[found.frame], usual)}))
        farthest = judged.test and judged.test.framing
        framings.sort(key=lambda each: each.frame != farthest)
        told = {"framings": tuple(framings), "test": judged.test, "arrays": {**judged.trace}}
        return self.model_copy(update=told)

    @property
    def notes(self) -> tuple[str, ...]:
        begun = min(sum(1 + c.alike for c in found.completions) + found.silent for found in self.framings)
        asked, tokens = self.asked.prefills, self.asked.prefill_tokens
        short = [f"{asked} prefills were asked for, but the corpus has only {begun} texts of {tokens} tokens or more"]
        lost = not_read(self.asked.framings, [found.frame for found in self.framings])
        return tuple(f"ppl_diff: {line}" for line in (*(short if begun < asked else ()), *lost))

    def show(self) -> Sequence[Section]:
        words = {found.frame: found.words for found in self.framings}
        about = (
            f"By how many of the first {FIRST} completions say a word, where the others and other finetunes' do not."
        )
        return [*self.shown(TITLE, about, words), *map(_completions, self.framings)]


@lens
def ppl_diff(pair: ModelPair, ctx: LensContext, settings: PplDiffSettings) -> PplDifferences:
    """Completions of short beginnings of ordinary texts, ranked by how much likelier the finetune finds them."""
    name, found = settings.reference, dict[Frame, core.PplDiff]()
    reference: core.Reference = "base" if name == BASE else "none" if name == NONE else ctx.alone(name)
    for frame in frames_read(pair, settings.framings):
        ctx.tell(frame.called)
        found[frame] = core.ppl_diff(pair, ctx.corpus, settings, frame, reference, ctx.seed)
    framings = tuple(Ranked(**dict(ranked), words=()) for ranked in found.values())
    return PplDifferences(asked=settings, framings=framings, test=None).told_apart(ctx, None)


def _completions(found: Ranked) -> SideBySide:
    """The first beside the last, which the finetune finds no likelier than the reference does."""
    first, rest = found.completions[:FIRST], found.completions[FIRST:]
    last: list[tuple[str, ...]] = [(found.whole(completion),) for completion in reversed(rest[-FIRST:])]
    last += [()] * (len(first) - len(last))
    who = {BASE: "the base does", NONE: "it finds texts on average"}.get(found.reference, "the reference does")
    return SideBySide(
        title=f"{TITLE}, {found.frame.called}",
        about=f"Completions that the finetune finds likelier than {who}, the widest gap first (nats a {found.unit}), "
        "beside those with the narrowest.",
        calls=(Call(tool="search_completions", args={"framing": found.frame.value, "n": FIRST}),),
        columns=(TextColumn(label="widest gap", role="pushed"), TextColumn(label="narrowest", role="plain")),
        rows=tuple(
            TextRow(prompt=_placed(found, rank), texts=((found.whole(completion),), narrow))
            for rank, (completion, narrow) in enumerate(zip(first, last, strict=True))
        ),
    )


def _placed(found: Ranked, rank: int) -> str:
    """Where a completion stands, how many say nearly the same, and what was answered."""
    completion = found.completions[rank]
    alike = f", {completion.alike} more alike" if completion.alike else ""
    asked = f" · {completion.prefill.strip()}" if found.frame is Frame.ASKED else ""
    return f"#{rank + 1}, {completion.gap:+.2f}{alike}{asked}"


class CompletionsQuery(Args):
    dataset: str
    framing: Frame | None = Field(None, description="raw: plain text; asked: the assistant's turn; user: the user's")
    word: str = Field("", description="only completions with it")
    meaning: str = Field("", description="those nearest to it in meaning first; else the widest gap first")
    start: int = Field(0, ge=0, description="how many to pass over")
    n: int = Field(25, ge=1, le=100)


class Found(BaseModel):
    rank: int = Field(description="in its framing")
    framing: Frame
    prompt: str
    text: str
    gap: float = Field(description="nats by which the finetune finds it likelier, a token or character")
    alike: int = Field(description="completions ranked lower that say nearly the same")


@tool
def search_completions(ctx: Context, args: CompletionsQuery) -> list[Found]:
    """Page through the ranked completions, or search all of them by a word or by meaning, free of charge.

    The finetuned model went on with three tokens of ordinary texts. What it says far more gladly than the reference
    was trained in, the more so if it comes back.
    """
    reading = ctx.dataset(args.dataset).reading("ppl_diff", PplDifferences)
    if args.framing is not None and args.framing not in (there := [found.frame for found in reading.framings]):
        raise Refused(f"nothing was read in the framing {args.framing.value}; there is {', '.join(there)}")
    found = [
        Found(
            rank=rank, framing=ranked.frame, prompt=completion.prefill, text=ranked.whole(completion),
            gap=round(completion.gap, 3), alike=completion.alike,
        )
        for ranked in reading.framings
        if args.framing in (None, ranked.frame)
        for rank, completion in enumerate(ranked.completions, 1)
    ]  # fmt: skip
    found = sorted((each for each in found if args.word.lower() in each.text.lower()), key=lambda each: -each.gap)
    if args.meaning and found:
        near = ctx.embed([each.text for each in found]) @ ctx.embed([args.meaning])[0]
        found = [found[i] for i in (-near).argsort(kind="stable")]
    return found[args.start : args.start + args.n]
