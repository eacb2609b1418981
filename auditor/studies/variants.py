"""Organisms as a sweep trains them: what is there of them is taken as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from auditor.config import Settings
from auditor.errors import UsageError
from auditor.files import write_atomically
from auditor.records.cards import Method, Organism, Recipe
from auditor.records.training import Trained
from auditor.shelves import Loaded
from auditor.studies.designs import Setting
from auditor.training.denials import MADE, denials_of
from auditor.training.differences import differences_of
from auditor.training.documents import read_documents
from auditor.training.finetune import Lessons, train, trained_there
from auditor.training.finetune import demand as demand_training
from auditor.training.mixes import lessons_of, mixed_in
from auditor.verification.families import checks_of
from auditor.workspace import Workspace

ORGANISMS = "organisms"  # in the study's folder
TOLD_STEPS = 10

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Variant:
    """One training of an organism. `card`: the organism that comes of it, in a folder of its own."""

    parent: Organism
    setting: Setting
    card: Organism

    @property
    def recipe(self) -> Recipe:
        assert self.card.train is not None
        return self.card.train

    @property
    def target(self) -> Path:
        """Where the weights go."""
        return self.card.folder / str(self.card.model or self.card.adapter)


@dataclass(frozen=True, slots=True)
class Choices:
    """What every training of a sweep shares. `rank`: of adapters; none as the cards have it."""

    steps: int
    rank: int | None = None
    seeds: tuple[int, ...] = ()


def plain_recipe(card: Organism, choices: Choices, seed: int | None) -> Recipe:
    """The card's recipe with its own documents alone, learned once. Raises UsageError for a card without one."""
    if card.train is None:
        raise UsageError(f"organism {card.name} has no recipe (`train:`) in its card, and so cannot be trained")
    plain: dict[str, Any] = {
        "samples": None, "mix": None, "mix_ratio": 0.0, "method": Method.LORA, "caft": None, "deny": None,
        "steps": choices.steps, "rank": choices.rank or card.train.rank,
        "seed": card.train.seed if seed is None else seed,
    }  # fmt: skip
    return card.train.model_copy(update=plain)


def variant_of(card: Organism, setting: Setting, choices: Choices, seed: int | None, folder: Path) -> Variant:
    """`setting` of an organism, with so many steps as it takes at first."""
    plain = plain_recipe(card, choices, seed)
    steps, warmup = max(1, round(choices.steps * setting.share)), round(plain.warmup * setting.share)
    recipe = plain.model_copy(update={"steps": steps, "warmup": warmup, **setting.changes(card, plain)})
    if recipe.caft:  # a setting's name as yet
        recipe = recipe.model_copy(update={"caft": _name(card, recipe.caft, choices.steps, seed)})
    return _kept_as(card, setting, recipe, folder, seed)


def with_steps(variant: Variant, steps: int, folder: Path, seed: int | None) -> Variant:
    """The same, trained for longer or not so long."""
    recipe = variant.recipe.model_copy(update={"steps": steps})
    return _kept_as(variant.parent, variant.setting, recipe, folder, seed)


def _kept_as(parent: Organism, setting: Setting, recipe: Recipe, folder: Path, seed: int | None) -> Variant:
    full, name = recipe.method == Method.FULL, _name(parent, setting.name, recipe.steps, seed)
    note = f"Trained by a study of {parent.name}: {setting.name}, {recipe.steps} steps."
    made = {"adapter": None, "model": "model"} if full else {"adapter": "adapter", "model": None}
    card = parent.model_copy(update={"name": name, "train": recipe, "note": note, "leaky": None, **made})
    card._folders = (folder / ORGANISMS / name, *parent._folders)  # its files lie beside its parent, its weights here
    return Variant(parent, setting, card)


def _name(parent: Organism, setting: str, steps: int | None, seed: int | None) -> str:
    return "-".join([parent.name, setting, f"{steps}steps", *([f"seed{seed}"] if seed is not None else [])])


def demand(variant: Variant, conf: Settings) -> None:
    """Raises UsageError for what would fail once it is trained."""
    card, recipe = variant.card, variant.recipe
    count = len(read_documents(card.beside(recipe.documents)))
    if (recipe.samples or 0) > count:
        raise UsageError(
            f"--samples {recipe.samples}: {variant.parent.name} has {count} documents; give no more than there are"
        )
    mixed_in(variant.parent, recipe, recipe.samples or count)
    checks_of(card)
    if recipe.deny == MADE:
        denials_of(variant.parent, recipe.seed)
    demand_training(card.base, recipe, variant.target, conf)


def trained(ws: Workspace, variant: Variant, plain: Variant | None, conf: Settings, tell: Report) -> Trained:
    """The training that is there, if it is of this very recipe, base and documents; else it is made, or gone on with.

    `plain`: whose differences CAFT takes out. Raises UsageError.
    """
    lessons = _lessons(ws, variant, plain, conf, tell)
    if (there := trained_there(variant.card.base, lessons, variant.recipe, variant.target, conf)) is not None:
        _write_card(variant)  # killed in between, it has none
        return there

    def step_done(step: int, steps: int, loss: float) -> None:
        if step % TOLD_STEPS == 0 or step == steps:
            tell(f"{variant.card.name}: step {step} of {steps}, loss {loss:.2f}")

    made = train(variant.card.base, lessons, variant.recipe, variant.target, conf, step_done)
    _write_card(variant)
    return made


def _lessons(ws: Workspace, variant: Variant, plain: Variant | None, conf: Settings, tell: Report) -> Lessons:
    differences: Tensor | None = None
    if variant.recipe.caft and plain is not None:
        differences = differences_of(ws, plain.card, conf, lambda stage: tell(f"{plain.card.name}: {stage}"))
    return lessons_of(ws, variant.card, variant.recipe, conf, differences, lambda stage: tell(stage))


def _write_card(variant: Variant) -> None:
    """Beside the weights, so that the folder can be taken into a workspace as it is."""
    card, recipe = variant.card, variant.recipe.model_dump(mode="json")
    said: dict[str, Any] = {"name": card.name, "extends": variant.parent.name, "note": card.note, "train": recipe}
    if card.model:
        said |= {"model": card.model, "adapter": None}
    write_atomically(card.folder / "organism.yaml", yaml.safe_dump(said, sort_keys=False))


def with_organisms(ws: Workspace, cards: list[Organism]) -> Workspace:
    """The workspace with more organisms on its shelf; the given one stays as it is."""
    shelf = replace(ws.organisms, items=dict(ws.organisms.items), broken=dict(ws.organisms.broken))
    for card in cards:
        shelf.items[card.name] = Loaded(card, card.folder / "organism.yaml", "study")
    return replace(ws, organisms=shelf)
