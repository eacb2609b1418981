"""Mean activation differences between the two models, on the first tokens of unrelated texts."""

from typing import Self

from pydantic import Field, model_validator

from auditor import LensContext, ModelPair, Record, lens
from auditor.methods.diff import differences as measured
from auditor.methods.found import Differences
from auditor.methods.layers import layers_read


class DifferencesSettings(Record):
    positions: int = Field(5, ge=1, le=128)
    only: tuple[int, ...] = Field((), description="of these, those that are read on; default: all (paper, figure 5c)")
    layers: tuple[int, ...] = Field(
        (), description="default: the middle layer, floor(L/2); of several, the one nearest to it is steered at"
    )
    norm_texts: int = Field(2_000, ge=1, description="texts over which η is measured")
    norm_tokens: int = Field(128, ge=4)

    @model_validator(mode="after")
    def _there(self) -> Self:
        if bad := [place for place in self.only if not 0 <= place < self.positions]:
            raise ValueError(
                f"only: {bad[0]} is none of the first {self.positions} positions (0 to {self.positions - 1})"
            )
        return self


@lens
def differences(pair: ModelPair, ctx: LensContext, settings: DifferencesSettings) -> Differences:
    """δ: the mean of the finetuned model's activations minus the base's, at each of the first positions of texts.

    What was learned shifts them in one direction, whatever the text.
    """
    last, asked = pair.n_layers - 1, layers_read(settings.layers, pair.n_layers)
    diffs = measured(
        pair, ctx.corpus, settings.positions, sorted({*asked, last}), settings.norm_texts, settings.norm_tokens,
        grouped=[last],
    )  # fmt: skip
    if settings.only:
        diffs = {layer: diff.at(settings.only) for layer, diff in diffs.items()}
    return Differences.of(diffs, asked, ctx.texts)
