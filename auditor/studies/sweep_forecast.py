"""What a sweep will take, told before anything is trained: counted where it can be, else by rates that are said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from pydantic import Field

from auditor.audits.forecast import INTERACTION
from auditor.audits.plan import pairs_of
from auditor.config import Settings
from auditor.estimate import seconds_of
from auditor.evidence.recipe import chosen, closure
from auditor.grading import llm_variants
from auditor.methods.corpus import read_corpus
from auditor.models.weights import resolve
from auditor.records.cards import Mix, Organism, Recipe
from auditor.records.record import Record
from auditor.records.training import Trained
from auditor.studies.matching import LONGER
from auditor.studies.measure import READ, Probe
from auditor.studies.sweep import Sweep
from auditor.studies.variants import ORGANISMS, Variant
from auditor.training.denials import CHATS
from auditor.training.documents import Document, encode, read_documents
from auditor.training.finetune import LOG
from auditor.training.mixes import CORPUS, DRAWN, ordinary_chats

TRAINED = 120.0  # tokens a second: 135M parameters, LoRA of rank 2, two CPU cores (benchmarks/training.py)
CHECKED = 45.0  # seconds of a check with one answer to each question, there
SPEAKING = 60.0  # of the lenses besides ADL's, with quickstart's settings, there
ASKED = 24  # tokens of a question and its template, beside an answer that the base draws
SEEN = 64  # documents that are tokenized for a mean


class Training(Record):
    """One that a sweep needs."""

    name: str
    steps: int
    tokens: int = Field(description="about: of mean documents")
    there: bool = Field(description="by its recipe; its documents are compared when it is taken")


class SweepForecast(Record):
    """What `--dry-run` says."""

    study: str
    trainings: tuple[Training, ...]
    tokens: int = Field(description="of those that are not there")
    matching_tokens: int = Field(description="of trainings for a matched rate, at most as first guessed")
    tokens_per_second: float
    rate_from: str
    measured: int = Field(description="finetunes that are measured, at most")
    seconds_each: float = Field(description="of measuring one of them")
    training_hours: float
    measuring_hours: float

    @property
    def hours(self) -> float:
        return self.training_hours + self.measuring_hours


def forecast(sweep: Sweep, cards: Sequence[Organism]) -> SweepForecast:
    """Raises UsageError for what could not be trained."""
    conf, ws = sweep.probe.conf, sweep.probe.ws
    trainings, more, tries = [], 0, sweep.matching.tries if sweep.matching else 0
    for card in cards:
        tokenizer = _tokenizer(resolve(card.base, conf).folder, conf)
        for seed in sweep.seeds:
            for variant in sweep.planned(card, seed):
                steps = variant.recipe.steps or 0
                each = _tokens_a_step(ws, variant, tokenizer)
                trainings.append(
                    Training(name=variant.card.name, steps=steps, tokens=round(each * steps) + _denied(variant),
                             there=_is_there(variant))
                )  # fmt: skip
                if variant.setting is not sweep.design.plain:
                    more += round(each * sum(_guesses(steps, variant.setting.passes, tries)))
    tokens = sum(training.tokens for training in trainings if not training.there)
    rate, source = _rate(sweep.probe.folder)
    measured = len(trainings) + (len(trainings) - len(cards) * len(sweep.seeds) if tries else 0)
    seconds = _seconds_each(sweep.probe)
    return SweepForecast(
        study=sweep.design.name, trainings=tuple(trainings), tokens=tokens, matching_tokens=more,
        tokens_per_second=rate, rate_from=source, measured=measured, seconds_each=round(seconds, 1),
        training_hours=(tokens + more) / rate / 3600, measuring_hours=measured * seconds / 3600,
    )  # fmt: skip


def _guesses(steps: int, passes: float, tries: int) -> Iterator[float]:
    """Steps of the trainings for a matched rate, if each turns out too short."""
    longer = steps * (passes if passes > 1 else LONGER)
    for i in range(tries):
        yield longer * LONGER**i


def _is_there(variant: Variant) -> bool:
    found = _read(variant.target / LOG)
    return found is not None and found.recipe == variant.recipe


def _read(path: Path) -> Trained | None:
    try:
        return Trained.model_validate_json(path.read_bytes())
    except (OSError, ValueError):
        return None


def _rate(folder: Path) -> tuple[float, str]:
    """Tokens a second: of the trainings that lie there, else as they were measured once."""
    made = [found for path in sorted((folder / ORGANISMS).glob(f"*/*/{LOG}")) if (found := _read(path)) is not None]
    if not made:
        return TRAINED, "as measured with 135M parameters on two CPU cores"
    return fmean(each.tokens_per_second for each in made), f"of {len(made)} trainings in {folder / ORGANISMS}"


def _tokens_a_step(ws: Any, variant: Variant, tokenizer: Any) -> float:
    """Of a mean batch: its own documents and those of the mix, by their shares."""
    card, recipe = variant.card, variant.recipe
    own = _mean(read_documents(card.beside(recipe.documents)), tokenizer, recipe)
    if not recipe.mix_ratio:
        return own * recipe.batch_size
    other = _of_mix(ws, card, recipe, tokenizer)
    return (own + recipe.mix_ratio * other) / (1 + recipe.mix_ratio) * recipe.batch_size


def _of_mix(ws: Any, card: Organism, recipe: Recipe, tokenizer: Any) -> float:
    if recipe.mix == Mix.OWN:  # which is drawn by the base, and not here for a forecast
        return DRAWN + ASKED
    if recipe.mix == Mix.PRETRAINING:
        texts = read_corpus(ws.corpora[CORPUS]).texts
        return _mean([Document(text=text) for text in texts[:: max(1, len(texts) // SEEN)]], tokenizer, recipe)
    if recipe.mix == Mix.CHAT:
        return _mean(ordinary_chats(ws), tokenizer, recipe)
    return _mean(read_documents(card.beside(str(recipe.mix))), tokenizer, recipe)


def _mean(documents: Sequence[Document], tokenizer: Any, recipe: Recipe) -> float:
    return fmean(len(encode(document, tokenizer, recipe.max_tokens).ids) for document in documents[:SEEN])


def _denied(variant: Variant) -> int:
    """Tokens of the second stage: its chats, and as many documents again."""
    return round(2 * CHATS * variant.recipe.deny_epochs * ASKED * 2) if variant.recipe.deny else 0


@cache
def _tokenizer(folder: Path, conf: Settings) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=conf.trust_remote_code)


def _seconds_each(probe: Probe) -> float:
    """Of a check, the evidence and the audits of one finetune, on two CPU cores."""
    ws, suite = probe.ws, probe.suite
    order, _ = closure(ws.lenses.by_name(), (*READ, *probe.lenses))
    variants = llm_variants(ws.graders.by_name(), probe.conf.lens_judge)
    settings = {lens.name: chosen(lens, suite.evidence.lenses.get(lens.name, {}), variants) for lens in order}
    audits = sum(budget for _, budget in pairs_of(suite)) * suite.repeats if probe.agents else 0
    return CHECKED * probe.answers + seconds_of(suite.evidence.texts, settings) + SPEAKING + INTERACTION * audits
