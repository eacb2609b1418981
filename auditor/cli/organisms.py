"""`auditor organisms`: list, show and new; each other command is a file of its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from auditor.cli.check import check
from auditor.cli.documents import documents
from auditor.cli.listing import list_shelf, show_card
from auditor.cli.numbers import numbers
from auditor.cli.pairs import on_machine
from auditor.cli.public import list_public, pull
from auditor.cli.scaffold import new_card
from auditor.cli.shared import JsonFlag, out, print_json, workspace
from auditor.cli.train import train
from auditor.models.embedded import is_embedded
from auditor.records.cards import Organism
from auditor.shelves import Loaded

app = typer.Typer(help="Finetunes whose truth is known.", no_args_is_help=True)
app.command()(on_machine(train))
app.command()(on_machine(check))
app.command()(documents)
app.command()(on_machine(numbers))
app.command()(pull)


def is_ready(organism: Organism) -> bool:
    """Whether the finetuned weights are here, or can be fetched from the hub now."""
    from auditor.models.embedded import hub_reachable

    if not (organism.adapter or organism.model):
        return False  # public finetunes only
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
def list_(
    public: Annotated[bool, typer.Option("--public", help="Those that others made, on the hub.")] = False,
    json: JsonFlag = False,
) -> None:
    """All organisms: their base, whether their weights are here, whether open questions alone name them."""
    if public:
        list_public(json=json)
        return
    shelf = workspace().organisms
    own = {name: item for name, item in shelf.items.items() if item.value.adapter or item.value.model}
    list_shelf(replace(shelf, items=own), _row, json=json)
    if not json:
        count = sum(len(variants) for item in shelf for variants in item.value.models.values())
        out.print(f"{count} more are public: `auditor organisms list --public`", style="dim", highlight=False)


@app.command()
def show(name: Annotated[str, typer.Argument()], json: JsonFlag = False) -> None:
    """An organism's card: the truth that graders see, and the rubric that they grade by."""
    card = workspace().organisms[name]
    if json:
        print_json(card.model_dump(mode="json") | {"rubric": card.grading})
        return
    there = {"adapter": card.finetuned} if card.adapter and not card.model else {}
    show_card(card, json=False, rubric=card.grading, **there)


@app.command()
def new(name: Annotated[str, typer.Argument()]) -> None:
    """Write an organism's card to start from into your workspace."""
    new_card("organisms", name)
