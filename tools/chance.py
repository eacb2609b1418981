"""Whether the difference is a trace: δ held against noise, and against broad finetunes of the same base."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

from torch import Tensor

from auditor import Figures, LensContext, ModelPair, RankedTokens, Reading, Record, lens
from auditor.methods.broad import Cohesion
from auditor.methods.chance import against_noise, beside_broad, least_p, p_of_trace, told, verdict
from auditor.methods.diff import Difference
from auditor.methods.found import Differences
from auditor.methods.nulls import Nulls
from auditor.methods.words import gauge_for
from auditor.readings import Basis, Column, Section, Token
from auditor.records.evidence import ChanceTest


class ChanceSettings(Record):
    pass


class Chance(Reading):
    corpus_bound: ClassVar[bool] = False  # δ of one finetune on two corpora is nearly one direction

    test: ChanceTest

    @property
    def verdict(self) -> str:
        return verdict(self.test)

    @property
    def p(self) -> float | None:
        return p_of_trace(self.test)

    @property
    def basis(self) -> Basis | None:
        against = self.test.against
        return Basis(finetunes=against.broad if against else 0, least=least_p(self.test))

    @property
    def trace(self) -> Mapping[str, Tensor]:
        return {"delta": self.arrays["delta"]}

    def held_against(self, pair: ModelPair, ctx: LensContext, nulls: Nulls) -> Self:
        diffs = ctx.reading("differences", Differences)
        last = diffs.difference(diffs.last_layer)
        if tuple(last.positions) != tuple(range(len(last.delta))):
            return self  # broad finetunes were read at the first positions, these are others
        others = nulls.without("delta", last.delta).traces["delta"]
        found = beside_broad(self.test, pair, last, _rows(diffs, last), _cohesion(pair, ctx), others)
        return self.model_copy(update={"test": found})

    def show(self) -> Sequence[Section]:
        tokens = tuple(Token(text=token) for token in self.test.tokens)
        return [
            Figures(
                title=self.verdict,
                about="Noise: signs drawn at random for groups of texts after δ is taken out. Broad finetunes: pairs "
                "of the same base, finetuned on mixed text only. Cohesion: how much the 20 words hang together, in "
                "standard deviations above random words.",
                weight=0,
                lines=tuple(told(self.test)),
            ),
            RankedTokens(
                title=f"Chance test: the words that were judged{self.unless_found}", weight=4,
                about="Words that δ promotes; where finetunes without a subject are known, what these explain least.",
                tested=True, places="positions", number="rank",
                columns=(Column(head="all", tokens=tokens),),
            ),
        ]  # fmt: skip


@lens(needs=("differences",))
def chance(pair: ModelPair, ctx: LensContext, settings: ChanceSettings) -> Chance:
    """Whether the last layer's δ is larger, steadier, and its words closer to one another than chance makes them."""
    diffs = ctx.reading("differences", Differences)
    last = diffs.difference(diffs.last_layer)
    test = against_noise(pair, last, _rows(diffs, last), _cohesion(pair, ctx), ctx.seed)
    return Chance(test=test, arrays={"delta": last.delta})


def _rows(diffs: Differences, last: Difference) -> list[int]:
    """Where in `last` the readable positions are."""
    return [list(last.positions).index(place) for place in diffs.readable]


def _cohesion(pair: ModelPair, ctx: LensContext) -> Cohesion:
    gauge = gauge_for(pair.tokenizer, ctx.embed, tuple(ctx.background))
    return lambda tokens: gauge.measure(tokens).cohesion
