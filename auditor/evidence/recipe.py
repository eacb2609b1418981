"""What evidence is made of, by name: lenses with their settings and needs, corpus, graders, nulls, prompts."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from auditor.config import Settings
from auditor.errors import AuditorError, BadFile, BadModel, UsageError
from auditor.evidence.sources import source_hash
from auditor.files import sha256_of
from auditor.grading import GraderKind, llm_variants
from auditor.lenses import BASE, NONE, Lens, LensContext
from auditor.methods.corpus import Corpus, demand_corpus, read_corpus, sampled_corpus
from auditor.methods.datasets import kept_rows
from auditor.methods.nulls import Nulls, read_nulls
from auditor.models.blind import BlindPair
from auditor.models.pair import ModelPair
from auditor.models.weights import resolve
from auditor.plugins import Grader, GraderContext
from auditor.readings import Reading
from auditor.records.cards import Agent, EvidenceSettings
from auditor.records.public import Dataset
from auditor.records.record import Record
from auditor.workspace import Workspace

SAMPLED, SAMPLED_TOKENS = "sampled", 32
FILES = (".jsonl", ".txt", ".gz")  # a name that ends so is a file's, and a wrong one if there is none
PAIR, NULLS = "pair", "nulls"  # the parts of a key that tell a pair's weights, and what a reading is held against


class _Prompts(BaseModel):
    calibration: tuple[str, ...]
    chat: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """Everything besides the pair's weights that evidence depends on; of other models, by name."""

    settings: EvidenceSettings
    lenses: Mapping[str, Lens]
    graders: Mapping[str, Grader]
    grading: GraderContext
    prompts: tuple[str, ...]
    calibration_prompts: tuple[str, ...]
    corpus_sha256: str
    corpus_drawn_from: str  # hash of the whole corpus
    read_corpus: Callable[[], Corpus]
    nulls: Sequence[tuple[str, Nulls]] = ()  # of the pair's base, each with its file's SHA-256
    has_base: bool = True

    def settings_of(self, lens: Lens) -> Record:
        """What the suite says of it, over its own defaults; held against none where no base is known.

        Raises UsageError.
        """
        variants = llm_variants(self.graders, self.grading.settings.lens_judge)
        settings = chosen(lens, self.settings.lenses.get(lens.name, {}), variants)
        if self.has_base:
            return settings
        return settings.model_copy(update={name: NONE for name in lens.compared if getattr(settings, name) == BASE})

    def others(self, lens: Lens) -> list[str]:
        """Models beside the pair that it is held against. Raises UsageError."""
        settings = self.settings_of(lens)
        return sorted({getattr(settings, name) for name in lens.compared} - {BASE, NONE})

    def context(self, lens: Lens, needed: Mapping[str, Reading], tell: Callable[[str], None]) -> LensContext:
        return LensContext(
            seed=self.settings.seed, texts=self.settings.texts, prompts=self.prompts,
            calibration_prompts=self.calibration_prompts, grading=self.grading, graders=self.graders,
            needed=needed, read_corpus=self.read_corpus, tell=tell,
        )  # fmt: skip

    def nulls_of(self, lens: Lens) -> list[tuple[str, Nulls]]:
        """Those that this lens read with the same settings, on as much of the same corpus where that matters."""
        told = self.settings_of(lens).model_dump(mode="json")
        known = [(sha256, nulls) for sha256, nulls in self.nulls if nulls.lens == lens.name]
        return [(sha256, n) for sha256, n in known if n.read_with(told, self.corpus_drawn_from, self.settings.texts)]

    def parts(self, lens: Lens, pair: ModelPair, needed: Sequence[str]) -> dict[str, str]:
        """Hashes of all that the reading depends on. `needed`: the keys of what it needs.

        Raises UsageError if another model that it is held against is not here.
        """
        settings, grading = self.settings_of(lens), self.grading
        judges = [self.graders[getattr(settings, name)] for name in lens.judges]
        parts = {
            PAIR: [pair.fingerprint, pair.dtype],
            "corpus": self.corpus_sha256,
            "settings": settings.model_dump(mode="json"),
            "suite": [self.settings.texts, self.settings.seed],
            "prompts": [self.prompts, self.calibration_prompts],
            "embedder": grading.settings.embedder,
            "background": hashlib.sha256("\0".join(grading.background).encode()).hexdigest(),
            "graders": [_source(judge) for judge in judges],
            "judge": _judge(grading, [judge.kind for judge in judges]) if judges else [],
            NULLS: [sha256 for sha256, _ in self.nulls_of(lens)[:1]],
            "needs": list(needed),
            "others": [_weights(model, grading.settings) for model in self.others(lens)],
            "code": source_hash(lens.path),
        }
        return {name: _digest(part) for name, part in parts.items()}

    def is_own(self, lens: Lens) -> bool:
        """Whether it takes what no server is given: an LLM that judges, a model beside the pair. Raises UsageError."""
        judged = any(self.grading.for_kind(kind).llm is not None for kind in lens.judges.values())
        return judged or bool(self.others(lens))


def key_of(parts: Mapping[str, str]) -> str:
    """What a reading is kept under."""
    return _digest(dict(parts))


def before_nulls(parts: Mapping[str, str]) -> str:
    """The key of the same reading before it is held against any nulls."""
    return key_of({**parts, NULLS: _digest([])})


def keys_of(recipe: Recipe, pair: ModelPair, lenses: Iterable[Lens]) -> dict[str, dict[str, str]]:
    """The parts of each lens' key, needs first. Raises UsageError."""
    found: dict[str, dict[str, str]] = {}
    for lens in lenses:
        found[lens.name] = recipe.parts(lens, pair, [key_of(found[need]) for need in lens.needs])
    return found


def recipe_for(ws: Workspace, pair: ModelPair, settings: EvidenceSettings, grading: GraderContext) -> Recipe:
    """Resolve the names in `settings`. Raises UsageError."""
    prompts = _Prompts.model_validate_json(_find(ws, "evals/corpora/chat_prompts.json").read_text("utf-8"))
    sha256, whole, read = _corpus(ws, pair, settings, grading.settings.cache_dir)
    return Recipe(
        settings=settings, lenses=ws.lenses.by_name(), graders=ws.graders.by_name(),
        grading=replace(grading, pair=BlindPair(pair)), prompts=prompts.chat,
        calibration_prompts=prompts.calibration, corpus_sha256=sha256,
        corpus_drawn_from=whole, read_corpus=read, nulls=_nulls(ws, pair), has_base=pair.has_base,
    )  # fmt: skip


def held_against(ws: Workspace, settings: EvidenceSettings, names: Iterable[str], model: str) -> EvidenceSettings:
    """`settings` in which all lenses called `names` that can are held against `model`, `base` or `none`.

    Raises UsageError if none of them can.
    """
    order, _ = closure(ws.lenses.by_name(), names)
    able = {lens.name: dict.fromkeys(lens.compared, model) for lens in order if lens.compared}
    if not able:
        read = ", ".join(lens.name for lens in order) or "nothing"
        raise UsageError(f"--reference {model}: no lens that is read takes one ({read}); ppl_diff, for one, does")
    return settings.over(able)


def named_by(ws: Workspace, agents: Iterable[Agent]) -> tuple[str, ...]:
    """The lenses that these agents are shown, or may read by a tool, each once."""
    shown = [name for agent in agents for name in (*agent.overview, *_of_tools(ws, agent.tools))]
    return tuple(dict.fromkeys(shown))


def _of_tools(ws: Workspace, tools: Iterable[str]) -> list[str]:
    """Lenses that are in the files of these tools."""
    known = ws.tools.by_name()
    return [name for tool in tools for name in known[tool].lenses]


def closure(lenses: Mapping[str, Lens], names: Iterable[str]) -> tuple[list[Lens], dict[str, str]]:
    """The lenses called `names` and all that they need, needs first; and of those that cannot be run, why."""
    order: dict[str, Lens] = {}
    failed: dict[str, str] = {}

    def visit(name: str, above: tuple[str, ...]) -> str:
        """What is wrong with it; nothing if it is in order."""
        if name in above:
            return f"it needs itself, over {', '.join((*above[above.index(name) + 1 :], name))}"
        if name in order or name in failed:
            return failed.get(name, "")
        try:
            lens = lenses[name]
        except AuditorError as error:
            return str(error)
        problems = [(need, visit(need, (*above, name))) for need in lens.needs]
        if wrong := [(need, told) for need, told in problems if told]:
            failed[name] = wrong[0][1] if name in wrong[0][1] else f"it needs {wrong[0][0]}: {wrong[0][1]}"
        else:
            order[name] = lens
        return failed.get(name, "")

    for name in names:
        if problem := visit(name, ()):
            failed.setdefault(name, problem)
    return list(order.values()), failed


def chosen(lens: Lens, given: Mapping[str, Any], variants: Mapping[str, str]) -> Record:
    """A lens' settings, its graders replaced by those that stand in for them (`variants`). Raises UsageError."""
    settings = lens.fitting(given)
    judges = {name: variants.get(getattr(settings, name), getattr(settings, name)) for name in lens.judges}
    return settings.model_copy(update=judges)


def judges_of(
    ws: Workspace, agents: Iterable[Agent], settings: EvidenceSettings, conf: Settings
) -> dict[str, GraderKind]:
    """The graders that judge in the lenses of these agents, with the kind that each must be of."""
    order, _ = closure(ws.lenses.by_name(), named_by(ws, agents))
    variants = llm_variants(ws.graders.by_name(), conf.lens_judge)
    found: dict[str, GraderKind] = {}
    for lens in order:
        settings_of = chosen(lens, settings.lenses.get(lens.name, {}), variants)
        found |= {getattr(settings_of, name): kind for name, kind in lens.judges.items()}
    return found


def corpus_named(ws: Workspace, name: str) -> Path | Dataset | None:
    """The file or dataset that a corpus' name means; None for texts sampled from the base model.

    Raises UnknownName for a plain word that names none, BadFile for a file that is not there.
    """
    path = Path(name)
    if name == SAMPLED:
        return None
    if name in ws.corpora:
        return ws.corpora[name]
    if name in ws.datasets:
        return ws.datasets[name]
    if "/" not in name and not path.suffix:
        return ws.corpora[name]  # raises, with names that are near
    if not path.exists() and (dataset := Dataset.parse(name)) and (dataset.file or path.suffix not in FILES):
        return dataset
    demand_corpus(path)
    return path


def named_corpus(ws: Workspace, name: str, pair: ModelPair, settings: EvidenceSettings, cache_dir: Path) -> Corpus:
    """A corpus of the workspace, a file, a dataset of the hub, or texts sampled from the base model."""
    found = corpus_named(ws, name)
    if found is None:
        return sampled_corpus(pair, settings.texts, SAMPLED_TOKENS, settings.seed)
    path = kept_rows(found, settings.texts, cache_dir) if isinstance(found, Dataset) else found
    return read_corpus(path).take(settings.texts, settings.seed)


def _corpus(
    ws: Workspace, pair: ModelPair, settings: EvidenceSettings, cache_dir: Path
) -> tuple[str, str, Callable[[], Corpus]]:
    """What stands for its texts in a key, what for all those that they were drawn from, and how it is read.

    What is sampled is sampled only for who reads it.
    """
    read = cache(lambda: named_corpus(ws, settings.corpus, pair, settings, cache_dir))
    if settings.corpus == SAMPLED:
        return SAMPLED, SAMPLED, read
    return read().sha256, read().drawn_from, read


def _nulls(ws: Workspace, pair: ModelPair) -> list[tuple[str, Nulls]]:
    """Files in `evals/nulls` that belong to the pair's base."""
    known = [(sha256_of(shelved.value), read_nulls(shelved.value)) for shelved in ws.nulls]
    return [(sha256, nulls) for sha256, nulls in known if nulls.holds_for(pair.base_sources)]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _find(ws: Workspace, relative: str) -> Path:
    for _, root in reversed(ws.roots):
        if (root / relative).is_file():
            return root / relative
    raise BadFile(ws.roots[0][1] / relative, "is missing from the built-in workspace")


def _judge(grading: GraderContext, kinds: Iterable[str]) -> list[str]:
    callers = [grading.for_kind(kind).llm for kind in kinds]
    names = dict.fromkeys(caller.name for caller in callers if caller is not None)
    if not names:
        return []
    told = [grading.prompts[name].source for name in sorted(grading.prompts) if name.startswith("grade_")]
    return [*names, *told]


def _weights(model: str, settings: Settings) -> list[str]:
    try:
        return [resolve(model, settings).sha256, str(settings.torch_dtype)]
    except BadModel as error:  # of the pair's own it would end everything
        raise UsageError(str(error)) from error


def _source(grader: Grader) -> str:
    try:
        return inspect.getsource(inspect.getmodule(grader.run) or grader.run)
    except (OSError, TypeError):
        return grader.name
