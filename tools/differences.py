"""Mean activation differences between the two models, on the first tokens of unrelated texts."""

from pydantic import Field

from auditor import LensContext, ModelPair, Record, lens
from auditor.methods.diff import differences as measured
from auditor.methods.found import Differences
from auditor.methods.layers import layers_read


class DifferencesSettings(Record):
    positions: int = Field(5, ge=1, le=128)
    layers: tuple[int, ...] = Field(
        (), description="default: the middle layer, floor(L/2); of several, the one nearest to it is steered at"
    )
    norm_texts: int = Field(2_000, ge=1, description="texts over which η is measured")
    norm_tokens: int = Field(128, ge=4)


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
    return Differences.of(diffs, asked, ctx.texts)
