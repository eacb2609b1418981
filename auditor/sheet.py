"""Runs the lens on a pair: from differences to one evidence sheet."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from auditor.errors import UsageError
from auditor.lens.broad import BroadFinetunes
from auditor.lens.chance import against_chance
from auditor.lens.corpus import Corpus
from auditor.lens.diff import Difference, differences
from auditor.lens.logit_lens import logit_lens
from auditor.lens.patchscope import patchscope
from auditor.lens.steering import Direction, calibrate, paired, resemblance, sample_answers
from auditor.lens.words import CohesionGauge, background_of, vocabulary_of
from auditor.models.pair import ModelPair
from auditor.plugins import Grader, GraderContext
from auditor.types import (
    ChanceTest,
    Evidence,
    EvidenceSettings,
    LayerEvidence,
    PatchscopeReading,
    PositionEvidence,
    ScoredToken,
    SteeredSample,
    SteeringEvidence,
    TokenSet,
)

Report = Callable[[str], None]
"""Told the name of each stage as it starts."""


@dataclass(frozen=True, slots=True)
class Lens:
    """Everything besides the pair that evidence depends on."""

    corpus: Corpus
    settings: EvidenceSettings
    prompts: tuple[str, ...]  # unrelated chat prompts, steered and unsteered
    calibration_prompts: tuple[str, ...]
    coherence: Grader
    scale: Grader
    grading: GraderContext
    broad: BroadFinetunes | None = None  # of the same base, to compare with


def compute_evidence(
    pair: ModelPair, lens: Lens, report: Report = lambda stage: None
) -> tuple[Evidence, dict[int, Tensor]]:
    """Differences, logit lens, patchscope, steering; and δ (k, d_model) per layer."""
    settings, seconds = lens.settings, {}
    middle, last = pair.n_layers // 2, pair.n_layers - 1
    asked = layers_read(settings, pair.n_layers)
    clock = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal clock
        now = time.perf_counter()
        seconds[stage] = round(now - clock, 2)
        clock = now

    report("differences")
    diffs = differences(
        pair,
        lens.corpus,
        settings.positions,
        sorted({*asked, last}),
        settings.norm_texts,
        settings.norm_tokens,
        grouped=[last],
    )
    lap("differences")
    report("chance")
    chance = _chance(pair, diffs, lens)
    lap("chance")
    report("patchscope")
    layers = tuple(read_layer(pair, diffs[layer], lens, with_patchscope=layer in asked) for layer in sorted(diffs))
    lap("patchscope")
    report("steering")
    chosen = _steered_directions(layers, diffs, layer_steered(settings, pair.n_layers), settings)
    alphas = calibrated(pair, lens, chosen)
    lap("calibration")
    report("samples")
    steerings = [d.steering(alpha) for d, alpha in zip(chosen, alphas, strict=True)]
    answers = sample_answers(pair, lens.prompts, [None, *steerings], settings.steering, settings.seed)
    unsteered, steered = answers[0], answers[1:]
    plain_resemblance = resemblance(unsteered, lens.grading.embed)
    lap("samples")
    evidence = Evidence(
        pair=pair.name,
        fingerprint=pair.fingerprint,
        corpus=lens.corpus.name,
        corpus_sha256=lens.corpus.sha256,
        texts_read=int(diffs[last].counts.max()),
        settings=settings,
        middle_layer=middle,
        last_layer=last,
        chance=chance,
        layers=layers,
        unsteered=tuple(
            SteeredSample(prompt=p, steered=(), unsteered=texts)
            for p, texts in zip(lens.prompts, unsteered, strict=True)
        ),
        steering=tuple(
            SteeringEvidence(
                layer=d.layer,
                position=d.position,
                alpha=alpha,
                resemblance=resemblance(texts, lens.grading.embed),
                resemblance_plain=plain_resemblance,
                samples=paired(lens.prompts, texts, unsteered),
            )
            for d, alpha, texts in zip(chosen, alphas, steered, strict=True)
        ),
        seconds=seconds,
    )
    return evidence, {layer: diff.delta for layer, diff in diffs.items()}


def layers_read(settings: EvidenceSettings, n_layers: int) -> tuple[int, ...]:
    """The layers that settings ask for, or the middle one. Raises UsageError if the model lacks one."""
    if wrong := [layer for layer in settings.layers if not 0 <= layer < n_layers]:
        raise UsageError(f"layers: {wrong[0]} is not there; this model has layers 0 to {n_layers - 1}")
    return settings.layers or (n_layers // 2,)


def layer_steered(settings: EvidenceSettings, n_layers: int) -> int:
    """Of those the one nearest to the middle: steering at every layer would take hours."""
    return min(layers_read(settings, n_layers), key=lambda layer: abs(layer - n_layers // 2))


def _chance(pair: ModelPair, diffs: dict[int, Difference], lens: Lens) -> ChanceTest:
    """The last layer's δ against chance, at positions that are no sink at any layer read."""
    k = lens.settings.positions
    kept = [j for j in range(k) if not any(diff.sinks[j] for diff in diffs.values())] or list(range(k))
    gauge = gauge_for(pair, lens)
    return against_chance(
        pair, diffs[max(diffs)], kept, lambda tokens: gauge.measure(tokens).cohesion, lens.broad, lens.settings.seed
    )


def gauge_for(pair: ModelPair, lens: Lens) -> CohesionGauge:
    """Measures how much tokens of the pair's vocabulary hang together."""
    embed, background = lens.grading.embed, background_of(tuple(lens.grading.background))
    return CohesionGauge(vocabulary_of(pair.tokenizer, embed), background, embed)


def read_layer(
    pair: ModelPair, diff: Difference, lens: Lens, *, with_patchscope: bool, numbers: Sequence[int] | None = None
) -> LayerEvidence:
    """What the lenses read in δ, −δ and both means of one layer. `numbers`: the positions, if not 0, 1, …"""
    settings = lens.settings
    k = len(diff.delta)
    numbers = range(k) if numbers is None else numbers
    lenses = logit_lens(pair, diff.delta, settings.lens_tokens)
    plain = logit_lens(pair, torch.cat([diff.base, diff.finetuned]), settings.patchscope.keep)
    read: list[PatchscopeReading | None] = [None] * (4 * k)  # of δ, both means and −δ
    if with_patchscope:
        sources = torch.cat([diff.delta, diff.base, diff.finetuned, -diff.delta])
        sweeps = patchscope(pair, diff.layer, sources, diff.eta, settings.patchscope)
        read = [_graded(sweep, lens) for sweep in sweeps]
    return LayerEvidence(
        layer=diff.layer,
        eta=diff.eta,
        positions=tuple(
            PositionEvidence(
                position=numbers[j],
                n_texts=int(diff.counts[j]),
                norm_delta=float(diff.delta[j].norm()),
                norm_base=float(diff.norm_base[j]),
                norm_finetuned=float(diff.norm_finetuned[j]),
                sink=diff.sinks[j],
                logit_lens=lenses[j],
                logit_lens_base=plain[j].top,
                logit_lens_finetuned=plain[k + j].top,
                patchscope=read[j],
                patchscope_base=_tokens(read[k + j]),
                patchscope_finetuned=_tokens(read[2 * k + j]),
                patchscope_negative=_tokens(read[3 * k + j]),
            )
            for j in range(k)
        ),
    )


def _graded(sweep: Sequence[TokenSet], lens: Lens) -> PatchscopeReading:
    choice = lens.scale.run(sweep, lens.grading)
    return PatchscopeReading(choice=choice, tokens=next(s.tokens for s in sweep if s.scale == choice.scale))


def _tokens(reading: PatchscopeReading | None) -> tuple[ScoredToken, ...]:
    return reading.tokens if reading else ()


def _steered_directions(
    sheets: Sequence[LayerEvidence], diffs: dict[int, Difference], layer: int, settings: EvidenceSettings
) -> list[Direction]:
    """At one layer all positions, or those whose patchscope hangs together best, sinks last."""
    positions = next(sheet.positions for sheet in sheets if sheet.layer == layer)
    ranked = sorted(positions, key=lambda p: (p.sink, -(p.patchscope.choice.cohesion if p.patchscope else 0.0)))
    wanted, diff = settings.steering.positions, diffs[layer]
    kept = ranked if wanted == "all" else ranked[:wanted]
    return [Direction(layer, p.position, diff.delta[p.position], diff.eta) for p in kept]


def calibrated(pair: ModelPair, lens: Lens, directions: Sequence[Direction]) -> list[float]:
    """The strength α of each direction, coherence being judged beside plain answers to the same prompts."""
    steering = lens.settings.steering
    plain = steering.model_copy(
        update={
            "samples": steering.calibration.generations,
            "temperature": steering.calibration.temperature,
            "max_new_tokens": steering.calibration.max_new_tokens,
        }
    )
    seed = lens.settings.seed
    answers = sample_answers(pair, lens.calibration_prompts, [None], plain, seed)[0]
    reference = [text for texts in answers for text in texts]
    return calibrate(
        pair,
        directions,
        lens.calibration_prompts,
        lambda texts: lens.coherence.run(list(texts), reference, lens.grading),
        steering.calibration,
        seed,
    )
