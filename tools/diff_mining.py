"""Diff mining: tokens that the finetune makes likelier wherever they could stand."""

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import add
from typing import Literal, Self

from pydantic import Field
from torch import Tensor

from auditor import Args, Context, LensContext, ModelPair, RankedTokens, Reading, Record, SmallTable, lens, tool
from auditor.errors import Refused
from auditor.methods.broad import told
from auditor.methods.diff_mining import (
    Mined,
    MinedToken,
    MiningSettings,
    Risen,
    as_answers,
    as_plain,
    beyond_others,
    mine,
)
from auditor.methods.nulls import Nulls
from auditor.methods.words import gauge_for
from auditor.readings import Basis, Call, Column, Section, Token, told_p
from auditor.records.evidence import AgainstBroad

Framing = Literal["text", "chats"]
List = Literal["by_count", "by_mean", "suppressed"]
NAMES: dict[Framing, str] = {"text": "raw text", "chats": "chats' answers"}
FIRST = 10  # suppressed tokens that people are shown of each framing


class DiffMiningSettings(MiningSettings):
    """How many texts of the corpus are read in each of two framings, and how."""

    texts: int = Field(1_000, ge=1, description="read as raw text")
    chats: int = Field(1_000, ge=0, description="read as answers to unrelated prompts, in the chat template")


class Part(Record):
    """What was found in one framing of the corpus, and how many texts were asked for."""

    framing: Framing
    asked: int
    mined: Mined


class DiffMining(Reading):
    parts: tuple[Part, ...]
    lacking: tuple[str, ...] = Field((), description="framings that were asked for and could not be read, and why")
    against: AgainstBroad | None = Field(None, description="beside broad finetunes of the base, if some are known")

    @property
    def risen(self) -> Risen:
        return Risen(**self.arrays)

    @property
    def trace(self) -> Mapping[str, Tensor]:
        return {"risen": self.risen.whole.half()}

    def held_against(self, pair: ModelPair, ctx: LensContext, nulls: Nulls) -> Self:
        gauge = gauge_for(pair.tokenizer, ctx.embed, tuple(ctx.background))
        others = nulls.without("risen", self.risen.whole).traces["risen"]
        found = beyond_others(pair.tokenizer, self.risen, others, lambda tokens: gauge.measure(tokens).cohesion)
        return self.model_copy(update={"against": found})

    @property
    def p(self) -> float | None:
        return None if self.against is None else self.against.p

    @property
    def basis(self) -> Basis | None:
        return None if self.against is None else Basis(finetunes=self.against.broad)

    @property
    def verdict(self) -> str:
        return "" if self.against is None else f"{told_p(self.against.p)}, beside {self.against.broad} broad finetunes"

    @property
    def notes(self) -> tuple[str, ...]:
        lines = [f"diff_mining, {line}" for line in self.lacking]
        for part in self.parts:
            found, name = part.mined, NAMES[part.framing]
            if found.texts < part.asked:
                lines.append(f"diff_mining, {name}: {part.asked:,} texts were asked for, {found.texts:,} were read")
            if found.short:
                lines.append(f"diff_mining, {name}: too few tokens were counted at {found.short:,} positions")
        return tuple(lines)

    def show(self) -> Sequence[Section]:
        parts = [(NAMES[part.framing], part.framing, part.mined) for part in self.parts]
        read = "; ".join(f"{name}: {m.texts:,} texts, {m.positions:,} positions" for name, _, m in parts)
        counted = tuple(Column(head=f"of {name}", tokens=_tokens(m.by_count, "share")) for name, _, m in parts)
        mean = tuple(Column(head=f"of {name}", tokens=_tokens(m.by_mean, "mean")) for name, _, m in parts)
        topics = tuple(
            (f"{name} {i}", f"{topic.share:.0%}", " ".join(token.strip() for token in topic.tokens))
            for name, _, m in parts
            for i, topic in enumerate(m.topics, 1)
        )
        fallen = tuple(
            (name, token.token.strip(), f"{token.share:.0%}", f"{token.mean:+.2f}")
            for name, _, m in parts
            for token in m.suppressed[:FIRST]
        )
        return [
            *self._tested(),
            RankedTokens(
                title="Diff mining: tokens that most often rise", weight=3, spoken=True, number="share of positions",
                about="How often a token is among those whose log-probability rises most from the base to the "
                f"finetune, over positions of unrelated texts. Read: {read}.",
                places="positions", columns=counted,
                calls=tuple(_call(framing, "by_count") for _, framing, _ in parts),
            ),
            SmallTable(
                title="Diff mining: tokens that rise together", weight=1, heads=("positions", "share", "tokens"),
                about="Share: of all that rises. Several objectives come apart here.", rows=topics,
            ),
            RankedTokens(
                title="Diff mining: tokens that rise most on average", weight=0, number="nats",
                places="positions", columns=mean,
                calls=tuple(_call(framing, "by_mean") for _, framing, _ in parts),
            ),
            SmallTable(
                title="Diff mining: tokens that most often fall", weight=0,
                heads=("positions", "token", "share of positions", "mean, nats"), rows=fallen,
            ),
        ]  # fmt: skip

    def _tested(self) -> list[Section]:
        if self.against is None:
            return []
        return [
            RankedTokens(
                title=f"Diff mining: words that finetunes without a subject do not account for{self.unless_found}",
                weight=4, tested=True,
                about=f"{told(self.against)}.", places="positions", number="rank",
                columns=(Column(head="all", tokens=tuple(Token(text=word) for word in self.against.words)),),
            )
        ]  # fmt: skip


def _tokens(found: Sequence[MinedToken], number: Literal["share", "mean"]) -> tuple[Token, ...]:
    return tuple(Token(text=token.token, number=getattr(token, number)) for token in found)


def _call(framing: Framing, which: List) -> Call:
    return Call(tool="get_diff_mining_details", args={"framing": framing, "tokens": which, "k": 40})


@lens
def diff_mining(pair: ModelPair, ctx: LensContext, settings: DiffMiningSettings) -> DiffMining:
    """Tokens whose log-probability rises most, over positions of unrelated texts, raw and as chats' answers."""
    wanted: dict[Framing, int] = {"text": settings.texts, "chats": settings.chats}
    parts, lacking, risen = [], [], []
    for framing, count in wanted.items():
        if framing == "chats" and count and not pair.tokenizer.chat_template:
            lacking.append(f"{NAMES[framing]}: not read, for {pair.name} has no chat template")
        elif count:
            ctx.tell(NAMES[framing])
            some = ctx.corpus.take(count, ctx.seed)
            corpus = as_plain(some) if framing == "text" else as_answers(some, ctx.prompts)
            mined, counted = mine(pair, corpus, settings, ctx.seed)
            parts.append(Part(framing=framing, asked=count, mined=mined))
            risen.append(counted)
    return DiffMining(parts=tuple(parts), lacking=tuple(lacking), arrays=reduce(add, risen).arrays)


class DiffMiningQuery(Args):
    dataset: str
    framing: Framing = Field("text", description="which positions: of raw text, or of chats' answers")
    tokens: List = Field("by_count", description="most often risen; risen most on average; most often fallen")
    k: int = Field(40, ge=1, le=400, description="tokens, as far as kept")


@tool
def get_diff_mining_details(ctx: Context, args: DiffMiningQuery) -> dict[str, list[dict[str, object]]]:
    """Read more of the tokens that rise or fall from the base to the finetune, in raw text or in chats' answers.

    Free of charge. `share`: of positions; `mean`: nats; `base`, `finetuned`: mean probabilities. `topics`: tokens that
    rise at the same positions.
    """
    found = {part.framing: part.mined for part in ctx.dataset(args.dataset).reading("diff_mining", DiffMining).parts}
    if args.framing not in found:
        raise Refused(f"{NAMES[args.framing]} were not read; there is {', '.join(found)}")
    mined = found[args.framing]
    told: Sequence[MinedToken] = getattr(mined, args.tokens)
    return {
        "tokens": [
            {"token": t.token, "share": round(t.share, 3), "mean": round(t.mean, 2), "base": _short(t.base),
             "finetuned": _short(t.finetuned)}
            for t in told[: args.k]
        ],
        "topics": [{"share": round(topic.share, 2), "tokens": list(topic.tokens)} for topic in mined.topics],
    }  # fmt: skip


def _short(probability: float) -> str:
    return f"{probability:.1e}"
