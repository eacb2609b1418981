"""Runs the lens on a pair, with a content-addressed cache."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from pydantic import BaseModel
from safetensors.torch import load_file, save_file
from torch import Tensor

from auditor.errors import BadFile
from auditor.lens.corpus import Corpus, read_corpus, sampled_corpus
from auditor.lens.diff import Difference, differences
from auditor.lens.logit_lens import logit_lens
from auditor.lens.patchscope import patchscope
from auditor.lens.steering import Direction, calibrate, paired, resemblance, sample_answers
from auditor.models.pair import ModelPair
from auditor.plugins import Dataset, Grader, GraderContext
from auditor.types import (
    Evidence,
    EvidenceSettings,
    LayerEvidence,
    PatchscopeReading,
    PositionEvidence,
    ScoredToken,
    SteeredSample,
    SteeringEvidence,
)
from auditor.workspace import Workspace

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

    def key(self, pair: ModelPair) -> str:
        """Changes whenever the evidence could."""
        parts = {
            "pair": pair.fingerprint,
            "corpus": self.corpus.sha256,
            "settings": self.settings.model_dump(mode="json"),
            "prompts": [self.prompts, self.calibration_prompts],
            "graders": [_source(self.coherence), _source(self.scale), self.grading.settings.embedder],
            "judge": self._judge(),
            "dtype": str(self.grading.settings.torch_dtype),
            "code": code_version(),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _judge(self) -> list[str]:
        if self.grading.llm is None:
            return []
        told = [p.source for name, p in sorted(self.grading.prompts.items()) if name.startswith("grade_")]
        return [self.grading.llm.name, *told]


class _Prompts(BaseModel):
    calibration: tuple[str, ...]
    chat: tuple[str, ...]


def make_lens(ws: Workspace, pair: ModelPair, settings: EvidenceSettings, grading: GraderContext) -> Lens:
    """Resolve the names in `settings`: corpus, graders, prompts."""
    prompts = _Prompts.model_validate_json((_find(ws, "evals/corpora/chat_prompts.json")).read_text())
    return Lens(
        corpus=named_corpus(ws, settings.corpus, pair, settings),
        settings=settings,
        prompts=prompts.chat[: settings.steering.prompts],
        calibration_prompts=prompts.calibration,
        coherence=ws.graders[settings.coherence_grader],
        scale=ws.graders[settings.scale_grader],
        grading=grading,
    )


def named_corpus(ws: Workspace, name: str, pair: ModelPair, settings: EvidenceSettings) -> Corpus:
    """A corpus of the workspace, a file, or texts sampled from the base model."""
    if name == "sampled":
        return sampled_corpus(pair, settings.texts, 32, settings.seed)
    path = ws.corpora[name] if name in ws.corpora.items or not Path(name).suffix else Path(name)
    return read_corpus(path).take(settings.texts, settings.seed)


def _find(ws: Workspace, relative: str) -> Path:
    for _, root in reversed(ws.roots):
        if (root / relative).is_file():
            return root / relative
    raise BadFile(ws.roots[0][1] / relative, "is missing from the built-in workspace")


def evidence_for(pair: ModelPair, lens: Lens, report: Report = lambda stage: None) -> Dataset:
    """The evidence of `pair`, from the cache if it was computed before with all the same inputs."""
    folder = lens.grading.settings.cache_dir / "evidence" / lens.key(pair)
    sheet, tensors = folder / "evidence.json", folder / "deltas.safetensors"
    if not sheet.exists():
        evidence, deltas = compute_evidence(pair, lens, report)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({str(layer): delta for layer, delta in deltas.items()}, tensors)
        part = sheet.with_suffix(".part")
        part.write_text(evidence.model_dump_json(indent=1))
        os.replace(part, sheet)  # last, so that a sheet always has its tensors
    loaded = {int(layer): delta for layer, delta in load_file(tensors).items()}
    return Dataset(Evidence.model_validate_json(sheet.read_text()), loaded)


def compute_evidence(
    pair: ModelPair, lens: Lens, report: Report = lambda stage: None
) -> tuple[Evidence, dict[int, Tensor]]:
    """Differences, logit lens, patchscope, steering; and δ (k, d_model) per layer."""
    settings, seconds = lens.settings, {}
    middle, last = pair.n_layers // 2, pair.n_layers - 1
    asked = settings.layers or (middle,)
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
    )
    lap("differences")
    report("patchscope")
    layers = tuple(_read_layer(pair, diffs[layer], lens, with_patchscope=layer in asked) for layer in sorted(diffs))
    lap("patchscope")
    report("steering")
    chosen = _steered_directions(layers, diffs, asked, settings)
    alphas = _calibrated(pair, lens, chosen)
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
        settings=settings,
        middle_layer=middle,
        last_layer=last,
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


def _read_layer(pair: ModelPair, diff: Difference, lens: Lens, *, with_patchscope: bool) -> LayerEvidence:
    settings = lens.settings
    k = len(diff.delta)
    lenses = logit_lens(pair, diff.delta, settings.lens_tokens)
    readings: list[PatchscopeReading | None] = [None] * k
    base = finetuned = readings
    if with_patchscope:
        sources = torch.cat([diff.delta, diff.base, diff.finetuned])
        sweeps = patchscope(pair, diff.layer, sources, diff.eta, settings.patchscope)
        graded = []
        for sweep in sweeps:
            choice = lens.scale.run(sweep, lens.grading)
            tokens = next(s.tokens for s in sweep if s.scale == choice.scale)
            graded.append(PatchscopeReading(choice=choice, tokens=tokens))
        readings, base, finetuned = list(graded[:k]), list(graded[k : 2 * k]), list(graded[2 * k :])
    return LayerEvidence(
        layer=diff.layer,
        eta=diff.eta,
        positions=tuple(
            PositionEvidence(
                position=j,
                n_texts=int(diff.counts[j]),
                norm_delta=float(diff.delta[j].norm()),
                norm_base=float(diff.norm_base[j]),
                norm_finetuned=float(diff.norm_finetuned[j]),
                sink=diff.sinks[j],
                logit_lens=lenses[j],
                patchscope=readings[j],
                patchscope_base=_tokens(base[j]),
                patchscope_finetuned=_tokens(finetuned[j]),
            )
            for j in range(k)
        ),
    )


def _tokens(reading: PatchscopeReading | None) -> tuple[ScoredToken, ...]:
    return reading.tokens if reading else ()


def _steered_directions(
    layers: Sequence[LayerEvidence],
    diffs: dict[int, Difference],
    asked: Sequence[int],
    settings: EvidenceSettings,
) -> list[Direction]:
    """All positions, or those whose patchscope hangs together best, sinks last."""
    chosen = []
    for layer in layers:
        if layer.layer not in asked:
            continue
        ranked = sorted(
            layer.positions, key=lambda p: (p.sink, -(p.patchscope.choice.cohesion if p.patchscope else 0.0))
        )
        wanted = settings.steering.positions
        kept = ranked if wanted == "all" else ranked[:wanted]
        diff = diffs[layer.layer]
        chosen += [Direction(layer.layer, p.position, diff.delta[p.position], diff.eta) for p in kept]
    return chosen


def _calibrated(pair: ModelPair, lens: Lens, directions: Sequence[Direction]) -> list[float]:
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


def _source(grader: Grader) -> str:
    try:
        return inspect.getsource(inspect.getmodule(grader.run) or grader.run)
    except (OSError, TypeError):
        return grader.name


@lru_cache(maxsize=1)
def code_version() -> str:
    """Hash of the code that computes evidence: a change there makes old cache entries unreachable."""
    here = Path(__file__).parent
    files = sorted([*here.glob("lens/*.py"), *here.glob("models/*.py"), Path(__file__)])
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
