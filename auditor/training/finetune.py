"""Finetuning of an organism from its recipe and documents: a LoRA adapter, or all of the weights."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from auditor.config import Settings
from auditor.errors import UsageError
from auditor.files import replacing_folder, sha256_of, write_atomically
from auditor.models.build import load_model
from auditor.models.weights import Weights, resolve
from auditor.models.worker import out_of_memory
from auditor.records.cards import Method, Recipe
from auditor.records.training import Trained
from auditor.training.caft import without
from auditor.training.checkpoints import Checkpoints, Told, difference
from auditor.training.course import Course, Stage
from auditor.training.documents import Document, Example, encode
from auditor.training.needs import demand_context, demand_memory
from auditor.training.rows import batches

Progress = Callable[[int, int, float], None]
"""Called with (step, steps, loss)."""

LOG = "training.json"
LIBRARIES = ("auditor-adl", "torch", "transformers", "peft")
MARKS = {Method.LORA: "adapter_config.json", Method.FULL: "config.json"}  # of a folder with such weights


@dataclass(frozen=True, slots=True)
class Lessons:
    """All that an organism learns from.

    `documents`: its own and those mixed in; `denials`: those of a second stage; `differences` (k, d_model): the
    plain finetune's at the middle layer, whose span is taken out (CAFT, paper appendix D.3).
    """

    documents: Sequence[Document]
    denials: Sequence[Document] = ()
    differences: Tensor | None = None


def train(
    base: str,
    lessons: Lessons,
    recipe: Recipe,
    target: Path,
    settings: Settings,
    progress: Progress | None = None,
    *,
    anew: bool = False,
) -> Trained:
    """Train and write to `target`: the adapter or the whole model, and how it went (`training.json`).

    A run that was cut off goes on from its last checkpoint, kept in the cache; the same seed gives the same weights
    either way. Raises UsageError if there is nothing to learn, if what lies at `target` must stay, if a training
    there, cut off or not, had another recipe (unless `anew`), if the memory does not suffice, or once the loss is no
    number any more; and OutOfMemory if it did not suffice after all.
    """
    weights, settings = demand(base, recipe, target, settings, anew=anew)
    compute, full = settings.torch_dtype, recipe.method == Method.FULL
    model, tokenizer = load_model(weights, settings.model_copy(update={"dtype": "float32"}) if full else settings)
    stages, examples, left_out = _stages(lessons, recipe, tokenizer)
    torch.manual_seed(recipe.seed)
    adapted = model.requires_grad_() if full else with_lora(model, recipe, weights.id)
    versions = {name: importlib.metadata.version(name) for name in LIBRARIES}
    told: Told = {
        "base": weights.sha256, "dtype": _dtype_name(settings), "recipe": recipe.model_dump(mode="json"),
        "documents": _digest_of(examples), "differences": _digest_of_differences(lessons),
        "device": str(next(model.parameters()).device), "versions": versions,
    }  # fmt: skip
    clock = time.perf_counter()
    with without(lessons.differences, model):
        course = Course(adapted, recipe, stages, compute if full and compute != torch.float32 else None)
        checkpoints = Checkpoints.of(settings.cache_dir, target, told)
        if (state := checkpoints.load(anew=anew)) is not None:
            course.resume(state)
        began = course.step
        adapted.train()
        while course.step < course.steps:
            loss = _advance(course)
            if progress is not None:
                progress(course.step, course.steps, loss)
            if checkpoints.due(course.step) and course.step < course.steps:
                checkpoints.save(course.state())
    trained = Trained(
        base=weights.id, base_sha256=weights.sha256, recipe=recipe, documents=len(lessons.documents),
        denials=len(lessons.denials), left_out=left_out,
        cut=sum(example.cut for example in examples), documents_sha256=told["documents"],
        differences_sha256=told["differences"], steps=course.steps, tokens=course.tokens, layout=course.layout,
        losses=tuple(round(loss, 4) for loss in course.losses), resumed_at=began or None,
        seconds=round(time.perf_counter() - clock, 1), device=str(course.device),
        dtype=_dtype_name(settings), versions=versions,
    )  # fmt: skip
    saved = _save(adapted, tokenizer, target, trained, full=full)
    checkpoints.clear()
    return saved


def demand(
    base: str, recipe: Recipe, target: Path, settings: Settings, *, anew: bool = False
) -> tuple[Weights, Settings]:
    """The base, and the settings with the recipe's type of weights. Raises UsageError for what can be told of them
    without the documents: see `train`.
    """
    settings = typed(settings, recipe)
    weights = resolve(base, settings)
    demand_place(target, weights, recipe, anew=anew)
    demand_context(weights.folder, recipe)
    demand_memory(weights.folder, recipe, settings)
    if recipe.method == Method.FULL and settings.torch_dtype == torch.float64:
        raise UsageError("`method: full` keeps its weights in float32; give `dtype: float32`, or one that is smaller")
    return weights, settings


def typed(settings: Settings, recipe: Recipe) -> Settings:
    """With the type of weights that the recipe asks for."""
    return settings if recipe.dtype is None else settings.model_copy(update={"dtype": recipe.dtype})


def _dtype_name(settings: Settings) -> str:
    return str(settings.torch_dtype).removeprefix("torch.")


def _advance(course: Course) -> float:
    try:
        return course.advance()
    except (RuntimeError, MemoryError) as error:
        less = "fewer `max_tokens`, `dtype: bfloat16` or a smaller rank need less"
        if (told := out_of_memory(error, f"at step {course.step + 1} of {course.steps}; {less}")) is None:
            raise
        raise told from error


def demand_place(target: Path, base: Weights, recipe: Recipe, *, anew: bool = False) -> None:
    """Raises UsageError for the base's own folder, for one of the other kind of weights (both would lie there, and
    whoever loads the folder would get the old ones), for weights that no training of ours left there, and, unless
    `anew`, for those of another base or recipe.
    """
    folder = target.expanduser()
    if folder.resolve() == base.folder.resolve():
        raise UsageError(f"{target} is the base that is trained; give another folder")
    for kind, mark in MARKS.items():
        if kind != recipe.method and (folder / mark).exists():
            held = "an adapter" if kind == Method.LORA else "a whole model"
            raise UsageError(
                f"{target} holds {held}, which `method: {recipe.method}` does not replace; give another folder"
            )
    if not (folder / MARKS[recipe.method]).exists():
        return
    if (before := trained_before(folder)) is None:
        raise UsageError(f"{target} holds weights that were not trained here, by its {LOG}; give another folder")
    there = {"base": before.base_sha256, **before.recipe.model_dump(mode="json")}
    differs = difference(there, {"base": base.sha256, **recipe.model_dump(mode="json")})
    if differs is not None and not anew:
        raise UsageError(
            f"{target} holds what another recipe gave ({differs}); give another --out, or drop it (--anew)"
        )


def trained_there(base: str, lessons: Lessons, recipe: Recipe, target: Path, settings: Settings) -> Trained | None:
    """What an earlier training of exactly this left at `target`; None if there is none, or not all of it."""
    from transformers import AutoTokenizer

    if (found := trained_before(target)) is None:
        return None
    weights, dtype = resolve(base, settings), _dtype_name(typed(settings, recipe))
    if (found.base_sha256, found.recipe, found.dtype) != (weights.sha256, recipe, dtype):
        return None
    tokenizer = AutoTokenizer.from_pretrained(weights.folder, trust_remote_code=settings.trust_remote_code)
    _, examples, _ = _stages(lessons, recipe, tokenizer)
    same = (_digest_of(examples), _digest_of_differences(lessons))
    return found if same == (found.documents_sha256, found.differences_sha256) else None


def trained_before(target: Path) -> Trained | None:
    """How what lies at `target` was trained; None if that is not told, or the weights are not those that it tells."""
    try:
        found = Trained.model_validate_json((target / LOG).read_bytes()).model_copy(update={"folder": target})
        whole = bool(found.sha256) and all(sha256_of(target / name) == known for name, known in found.sha256.items())
    except (OSError, ValueError):
        return None
    return found if whole else None


def _stages(lessons: Lessons, recipe: Recipe, tokenizer: Any) -> tuple[list[Stage], list[Example], int]:
    """What is learned from in turn, all its examples, and how many documents have nothing to learn in them."""
    told = [(lessons.documents, recipe.epochs, recipe.steps)]
    if lessons.denials:
        told.append((lessons.denials, recipe.deny_epochs, None))
    stages, every, left_out = [], list[Example](), 0
    for (documents, epochs, steps), name in zip(told, ("documents", "denials"), strict=False):
        encoded = [encode(document, tokenizer, recipe.max_tokens) for document in documents]
        examples = [example for example in encoded if any(example.learned[1:])]  # the first token is never foreseen
        if not examples:
            raise UsageError(
                f"none of the {len(documents)} documents leaves a token to be learned among its first "
                f"{recipe.max_tokens}; give longer ones, or a recipe with more `max_tokens`"
            )
        plan = batches(examples, recipe, epochs, steps)
        stages.append(Stage(name, [[examples[i] for i in indices] for indices in plan]))
        every += examples
        left_out += len(encoded) - len(examples)
    return stages, every, left_out


def with_lora(model: Any, recipe: Recipe, base_id: str) -> Any:
    """Raises UsageError if the model lacks one of the matrices that the recipe names."""
    from peft import LoraConfig, get_peft_model

    targets = list(recipe.targets) or "all-linear"
    config = LoraConfig(r=recipe.rank, lora_alpha=recipe.alpha, target_modules=targets, task_type="CAUSAL_LM")
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:
        raise UsageError(f"the recipe's `targets` {', '.join(recipe.targets)}: not in the base ({error})") from error
    changed = adapted.base_model.targeted_module_names
    if lost := [name for name in recipe.targets if not any(f".{key}".endswith(f".{name}") for key in changed)]:
        raise UsageError(f"the recipe's `targets`: no {', '.join(lost)} in the base, which the others are in")
    adapted.peft_config["default"].base_model_name_or_path = base_id
    return adapted


def _save(adapted: Any, tokenizer: Any, target: Path, trained: Trained, *, full: bool) -> Trained:
    """Write the weights and how they came about, all or nothing. Raises BadFile if they cannot be written."""
    with TemporaryDirectory() as folder, replacing_folder(target) as part:
        if full:
            adapted.save_pretrained(part)
            tokenizer.save_pretrained(part)
        else:
            adapted.half().save_pretrained(folder, save_embedding_layers=False)
            for name in ("adapter_config.json", "adapter_model.safetensors"):  # PEFT writes an empty model card too
                copyfile(Path(folder) / name, part / name)
            _in_order(part / "adapter_config.json")
        digests = {path.name: sha256_of(path) for path in sorted(part.glob("*.safetensors"))}
        trained = trained.model_copy(update={"folder": target, "sha256": digests})
        write_atomically(part / LOG, trained.model_dump_json(indent=1, exclude={"folder"}))
    return trained


def _in_order(path: Path) -> None:
    """PEFT writes the matrices' names as a set has them: in another order each time."""
    config = json.loads(path.read_text("utf-8"))
    config["target_modules"] = sorted(config["target_modules"])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def _digest_of(examples: Sequence[Example]) -> str:
    return _digest([{"ids": example.ids, "learned": example.learned} for example in examples])


def _digest_of_differences(lessons: Lessons) -> str | None:
    return None if lessons.differences is None else _digest(lessons.differences.tolist())


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
