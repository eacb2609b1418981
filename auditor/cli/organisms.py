"""`auditor organisms`: list, show, train, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from auditor.cli.check import check
from auditor.cli.listing import list_shelf, show_thing
from auditor.cli.shared import JsonFlag, err, out, settings, workspace
from auditor.errors import UsageError
from auditor.models.embedded import is_embedded
from auditor.records.cards import Organism
from auditor.shelves import Loaded

TOLD_STEPS = 10  # a line for as many, where there is no terminal for a bar

app = typer.Typer(help="Finetunes whose truth is known.", no_args_is_help=True)
app.command()(check)


def is_ready(organism: Organism) -> bool:
    """Whether the finetuned weights are here, or can be fetched from the hub now."""
    from auditor.models.embedded import hub_reachable

    path = Path(organism.finetuned)
    if path.is_dir():
        base_here = is_embedded(organism.base) or Path(organism.base).is_dir()
        return any(path.glob("*.safetensors")) and (base_here or hub_reachable())
    return "/" in organism.finetuned and not path.is_absolute() and hub_reachable()


def _row(item: Loaded[Organism]) -> dict[str, Any]:
    card = item.value
    return {
        "family": card.family,
        "base": card.base,
        "adapter": card.adapter,
        "ready": is_ready(card),
        "leaky": card.leaky,
        "note": card.note,
    }


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """All organisms: their base, whether their weights are here, whether open questions alone name them."""
    list_shelf(workspace().organisms, _row, json=json)


@app.command()
def show(name: Annotated[str, typer.Argument()], json: JsonFlag = False) -> None:
    """An organism's card: the truth that graders see, and the rubric that they grade by."""
    card = workspace().organisms[name]
    show_thing(card.model_dump(mode="json") | {"rubric": card.grading}, json=json)


@app.command()
def train(
    name: Annotated[str, typer.Argument()],
    seed: Annotated[int | None, typer.Option(help="Instead of the recipe's.")] = None,
    out_dir: Annotated[Path | None, typer.Option("--out", help="Adapter folder; default: beside the card.")] = None,
) -> None:
    """Finetune an organism from its documents; goes on where it was cut off."""
    from auditor.training.documents import mix, read_documents
    from auditor.training.finetune import train as run
    from auditor.training.mixes import others_of

    card = workspace().organisms[name]
    if card.train is None:
        raise UsageError(f"{name} has no `train` recipe in {card.folder / 'organism.yaml'}")
    recipe = card.train if seed is None else card.train.model_copy(update={"seed": seed})
    documents = read_documents(card.beside(recipe.documents))
    others = others_of(workspace(), card, recipe)
    target = out_dir or card.folder / (card.adapter or "adapter")
    if (there := next(path for path in (target, *target.absolute().parents) if path.exists())) and not there.is_dir():
        raise UsageError(f"--out {target}: {there} is a file; give a folder")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("loss {task.fields[loss]:.2f}"), console=err) as bar:
        task = bar.add_task(name, total=None, loss=float("nan"))

        def step_done(step: int, steps: int, loss: float) -> None:
            bar.update(task, completed=step, total=steps, loss=loss)
            if not err.is_terminal and (step % TOLD_STEPS == 0 or step == steps):
                err.print(f"{name}: step {step} of {steps}, loss {loss:.2f}", style="dim", highlight=False)

        trained = run(
            card.base,
            mix(documents, others, recipe.mix_ratio, recipe.seed),
            recipe,
            target,
            settings(),
            step_done,
        )
    if trained.left_out:
        err.print(f"[yellow]note:[/] {trained.left_out} documents have nothing to learn in their first tokens")
    out.print(
        f"{escape(str(trained.adapter))}: {trained.steps} steps, {trained.tokens} tokens, "
        f"loss {trained.first_loss:.2f} → {trained.last_loss:.2f}",
        highlight=False,
    )
