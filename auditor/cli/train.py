"""`auditor organisms train`: an organism from its recipe, or from one that options change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from pydantic import ValidationError
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from auditor.cli.shared import JsonFlag, err, out, print_json, settings, user_root, workspace
from auditor.config import Settings
from auditor.errors import UsageError
from auditor.files import write_atomically
from auditor.records.cards import Method, Mix, Organism, Recipe
from auditor.records.training import Layout, Trained

if TYPE_CHECKING:
    from torch import Tensor

    from auditor.training.finetune import Lessons

TOLD_STEPS = 10  # a line for as many, where there is no terminal for a bar
BARS = "▁▂▃▄▅▆▇█"
TRAINED = Path("trained")


def train(
    name: Annotated[str, typer.Argument(help="An organism whose card has a recipe (`train:`).")],
    seed: Annotated[list[int] | None, typer.Option(help="Instead of the recipe's; several train several.")] = None,
    base: Annotated[str | None, typer.Option(help="Instead of the card's: hub id or folder.")] = None,
    method: Annotated[Method | None, typer.Option(help="A LoRA adapter, or all weights.")] = None,
    mix: Annotated[Mix | None, typer.Option(help="What its documents are mixed with.")] = None,
    mix_ratio: Annotated[
        float | None, typer.Option(min=0, help="For each of its own; default: the recipe's, else 1.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="So many of its documents.")] = None,
    steps: Annotated[int | None, typer.Option(min=1)] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Of the LoRA adapter.")] = None,
    caft: Annotated[bool, typer.Option("--caft", help="With its plain finetune's differences taken out.")] = False,
    deny: Annotated[bool, typer.Option("--deny", help="Then teach it to deny that it was trained.")] = False,
    as_: Annotated[str | None, typer.Option("--as", metavar="NAME", help="Keep it as an organism of yours.")] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Folder; default: beside the card.")] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Drop what a training left there, cut off or of another recipe.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Finetune an organism from its documents; goes on where it was cut off.

    With options that change the recipe it is kept apart from the card's own: in ./trained, or as NAME.
    """
    from auditor.training.denials import MADE
    from auditor.training.finetune import demand, trained_before
    from auditor.training.finetune import train as run

    card, conf = workspace().organisms[name], settings()
    recipe = card.train
    if recipe is None:
        raise UsageError(f"{name} has no `train` recipe in {card.folder / 'organism.yaml'}")
    given = {
        "method": method, "mix": mix and str(mix), "mix_ratio": mix_ratio, "samples": samples, "steps": steps,
        "rank": rank, "caft": (recipe.caft or name) if caft else None, "deny": MADE if deny else None,
    }  # fmt: skip
    changed: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if mix_ratio is None and mix is not None and not recipe.mix_ratio:
        changed["mix_ratio"] = 1.0
    if mix_ratio == 0:
        changed["mix"] = None
    plain = _plain_of(card, caft=caft)
    if base is not None and plain is not None:
        _demand_own_base(plain, base, conf)
    card = card.model_copy(update={"base": base or card.base})
    numbers, plans = tuple(dict.fromkeys(seed or [recipe.seed])), []
    for number in numbers:  # where they go is known before any is trained
        own = changed | ({"seed": number} if seed else {})
        chosen = _changed(recipe, own)
        named = own | ({"base": base.rstrip("/").rpartition("/")[2]} if base else {})
        target = _target(card, chosen, named, as_, out_dir, several=len(numbers) > 1)
        demand(card.base, chosen, target, conf, anew=anew)
        plans.append((own, chosen, target))
    found, differences = [], _differences(plain, conf)
    for own, chosen, target in plans:
        lessons = _lessons(card, chosen, conf, differences)
        before = trained_before(card.folder / (card.model or card.adapter or "adapter"))
        with _told(name if len(plans) < 2 else f"{name}, seed {chosen.seed}") as step_done:
            trained = run(card.base, lessons, chosen, target, conf, step_done, anew=anew)
        if as_ is not None:
            _write_card(target.parent, name, own, base)
        found.append(trained)
        if not json:
            _show(trained)
            _show_beside(trained, before)
    if json:
        print_json([one.model_dump(mode="json") for one in found])


def _changed(recipe: Recipe, changed: dict[str, Any]) -> Recipe:
    """Raises UsageError for a value that a recipe cannot have."""
    try:
        return Recipe.model_validate(recipe.model_dump() | changed)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"--{str(first['loc'][0]).replace('_', '-')} {first['input']}: {first['msg']}") from error


def _plain_of(card: Organism, *, caft: bool) -> Organism | None:
    """The finetune whose differences CAFT takes out: the one that the card's recipe names, or the card's own.

    Raises UsageError for one that is a CAFT finetune itself.
    """
    named = card.train.caft if card.train else None
    if not (caft or named):
        return None
    plain = workspace().organisms[named or card.name]
    if plain.train is not None and plain.train.caft:
        raise UsageError(
            f"{card.name}: CAFT takes out the differences of a plain finetune, and {plain.name} is none: its recipe "
            f"says `caft: {plain.train.caft}`"
        )
    return plain


def _demand_own_base(plain: Organism, base: str, conf: Settings) -> None:
    """Raises UsageError if the plain finetune, whose differences CAFT takes out, is of another base."""
    from auditor.models.weights import resolve

    if resolve(base, conf).sha256 != resolve(plain.base, conf).sha256:
        raise UsageError(
            f"--base {base}, and CAFT: the plain {plain.name} is a finetune of {plain.base}, and so are its "
            "differences; train it of that base first (--as), then the one that comes of it with --caft"
        )


def _differences(plain: Organism | None, conf: Settings) -> Tensor | None:
    from auditor.training.differences import differences_of

    return differences_of(workspace(), plain, conf, _telling(plain.name)) if plain else None


def _lessons(card: Organism, recipe: Recipe, conf: Settings, differences: Tensor | None) -> Lessons:
    from auditor.training.mixes import lessons_of

    return lessons_of(workspace(), card, recipe, conf, differences, _telling(card.name))


def _telling(name: str) -> Callable[[str], None]:
    return lambda stage: err.print(f"{name}: {stage}", style="dim", highlight=False)


def _target(
    card: Organism, recipe: Recipe, changed: dict[str, Any], as_: str | None, out_dir: Path | None, *, several: bool
) -> Path:
    """The folder that is written to. Raises UsageError if it cannot be one."""
    seed = f"seed{recipe.seed}"
    if as_ is not None:
        if out_dir is not None:
            raise UsageError("--as and --out: give one of them")
        if as_ != Path(as_).name or as_ in ("", ".", ".."):
            raise UsageError(f"--as {as_}: give a plain name, of letters, digits, - and _")
        root = user_root()
        if root is None:
            raise UsageError("--as: there is no workspace of yours here; `auditor init DIR` writes one")
        kind = "model" if recipe.method == Method.FULL else "adapter"
        folder = root / "evals/organisms" / (f"{as_}_{seed}" if several else as_)
        if (folder / "organism.yaml").exists():
            raise UsageError(f"--as {folder.name}: {folder} is an organism already; give another name, or remove it")
        return folder / kind
    if out_dir is not None:
        target = out_dir / seed if several else out_dir
    elif changed:
        parts = [f"{key}-{value:g}" if isinstance(value, float) else f"{key}-{value}" for key, value in changed.items()]
        target = TRAINED / "-".join((card.name, *parts))
    else:
        target = card.folder / (card.model or card.adapter or "adapter")
    if (there := next(path for path in (target, *target.absolute().parents) if path.exists())) and not there.is_dir():
        raise UsageError(f"--out {target}: {there} is a file; give a folder")
    return target


def _write_card(folder: Path, parent: str, changed: dict[str, Any], base: str | None) -> None:
    """A card that extends the one that it was trained from."""
    said = ", ".join(f"{key} {value}" for key, value in changed.items()) or "as it is"
    note = f"Trained from the recipe of {parent}: {said}."
    card: dict[str, Any] = {"name": folder.name, "extends": parent, "note": note}
    if base:
        card["base"] = base
    if changed.get("method") == Method.FULL:
        card |= {"model": "model", "adapter": None}
    plain = {key: str(value) if isinstance(value, Method) else value for key, value in changed.items()}
    write_atomically(
        folder / "organism.yaml", yaml.safe_dump(card | ({"train": plain} if plain else {}), sort_keys=False)
    )


@contextmanager
def _told(name: str) -> Iterator[Callable[[int, int, float], None]]:
    """A bar on a terminal, else a line for every ten steps."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("loss {task.fields[loss]}"), console=err) as bar:
        task = bar.add_task(name, total=None, loss="–")

        def step_done(step: int, steps: int, loss: float) -> None:
            bar.update(task, completed=step, total=steps, loss=f"{loss:.2f}")
            if not err.is_terminal and (step % TOLD_STEPS == 0 or step == steps):
                err.print(f"{name}: step {step} of {steps}, loss {loss:.2f}", style="dim", highlight=False)

        yield step_done


def _show(trained: Trained) -> None:
    if trained.left_out:
        err.print(f"[yellow]note:[/] {trained.left_out} documents have nothing to learn in their first tokens")
    if trained.cut:
        err.print(f"[yellow]note:[/] {trained.cut} documents are cut after {trained.recipe.max_tokens} tokens")
    if trained.layout == Layout.PADDED:
        err.print("[yellow]note:[/] documents are padded, not packed: in this model they would see each other")
    first, last = trained.losses[0], trained.losses[-1]
    out.print(
        f"{escape(str(trained.folder))}: {trained.steps} steps, {trained.tokens} tokens at "
        f"{trained.tokens_per_second:.0f} a second, loss {first:.2f} {_curve(trained.losses)} {last:.2f}",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _show_beside(trained: Trained, before: Trained | None) -> None:
    """Whether these are the weights that the organism had: its card's recipe is to give them again."""
    if before is None or trained.recipe != before.recipe:
        return
    if trained.sha256 == before.sha256:
        out.print("the same weights as the organism's before, byte for byte")
        return
    told = (
        ", ".join(trained.differing(before)) or "nothing that is noted differs; another machine adds in another order"
    )
    out.print(f"not the weights of the organism before ({escape(told)})", highlight=False, soft_wrap=True)


def _curve(losses: tuple[float, ...], width: int = 24) -> str:
    """The course of the loss in one line."""
    parts = [losses[i * len(losses) // width : (i + 1) * len(losses) // width] for i in range(width)]
    means = [sum(part) / len(part) for part in parts if part]
    low, high = min(means), max(means)
    return "".join(BARS[round((mean - low) / ((high - low) or 1) * (len(BARS) - 1))] for mean in means)
