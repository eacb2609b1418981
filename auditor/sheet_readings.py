"""An evidence sheet as readings of the lenses that made it."""

from __future__ import annotations

from collections.abc import Sequence

from auditor.lens.found import (
    Differences,
    LogitLens,
    Norms,
    Patched,
    PatchedAt,
    Patchscope,
    Place,
    PlainSamples,
    Promoted,
    PromotedAt,
    Steered,
)
from auditor.readings import Figures, Reading, Section
from auditor.text import chance_lines
from auditor.types import ChanceTest, Evidence, LayerEvidence


class Chance(Reading):
    """δ held against chance."""

    test: ChanceTest

    @property
    def verdict(self) -> str:
        return self.test.verdict

    def show(self) -> Sequence[Section]:
        return [
            Figures(
                title=self.verdict,
                about="Noise: signs drawn at random for groups of texts after δ is taken out. Broad finetunes: pairs "
                "of the same base, finetuned on mixed text only. Cohesion: how much the 20 words hang together, in "
                "standard deviations above random words.",
                weight=0,
                lines=tuple(chance_lines(self.test)),
            )
        ]


def readings_of(sheet: Evidence) -> dict[str, Reading]:
    """By lens, in the order in which they are shown."""
    last = sheet.last_layer
    return {
        "chance": Chance(test=sheet.chance),
        "differences": Differences(
            corpus=sheet.corpus,
            texts_asked=sheet.settings.texts,
            texts_read=sheet.texts_read,
            last_layer=last,
            layers=tuple(_norms(layer) for layer in sheet.layers),
        ),
        "logit_lens": LogitLens(last_layer=last, layers=tuple(_promoted(layer) for layer in sheet.layers)),
        "patchscope": Patchscope(
            layers=tuple(_patched(layer) for layer in sheet.layers if layer.positions[0].patchscope)
        ),
        "plain_samples": PlainSamples(prompts_asked=sheet.settings.steering.prompts, answers=sheet.unsteered),
        "steering": Steered(directions=sheet.steering),
    }


def _norms(layer: LayerEvidence) -> Norms:
    places = tuple(
        Place(position=p.position, n_texts=p.n_texts, norm_delta=p.norm_delta, norm_base=p.norm_base,
              norm_finetuned=p.norm_finetuned, sink=p.sink)
        for p in layer.positions
    )  # fmt: skip
    return Norms(layer=layer.layer, eta=layer.eta, positions=places)


def _promoted(layer: LayerEvidence) -> PromotedAt:
    places = tuple(
        Promoted(position=p.position, sink=p.sink, read=p.logit_lens, base=p.logit_lens_base,
                 finetuned=p.logit_lens_finetuned)
        for p in layer.positions
    )  # fmt: skip
    return PromotedAt(layer=layer.layer, positions=places)


def _patched(layer: LayerEvidence) -> PatchedAt:
    places = tuple(
        Patched(position=p.position, sink=p.sink, read=p.patchscope, base=p.patchscope_base,
                finetuned=p.patchscope_finetuned, negative=p.patchscope_negative)
        for p in layer.positions if p.patchscope
    )  # fmt: skip
    return PatchedAt(layer=layer.layer, positions=places)
